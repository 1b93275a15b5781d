#include "libs/config/yaml_json.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>

#include "libs/base/try.h"

namespace crisp::config {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;

template <typename T>
bool Parses(std::string_view text, int base, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size();
}

json Scalar(const YAML::Node& yaml) {
  const std::string& text = yaml.Scalar();
  // "!" is how yaml-cpp marks what was in quotes.
  if (yaml.Tag() == "!" || yaml.Tag() == "tag:yaml.org,2002:str") return text;
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") {
    return nullptr;
  }
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  std::int64_t whole = 0;
  if (Parses(text, 10, whole)) {
    return whole < 0 ? json(whole) : json(static_cast<std::uint64_t>(whole));
  }
  std::uint64_t natural = 0;
  if (Parses(text, 10, natural)) return natural;
  if (text.starts_with("0o") && Parses(std::string_view(text).substr(2), 8, natural)) {
    return natural;
  }
  if (text.starts_with("0x") && Parses(std::string_view(text).substr(2), 16, natural)) {
    return natural;
  }
  double real = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), real);
  const bool digits = text.find_first_of("0123456789") != std::string::npos;
  if (digits && error == std::errc() && end == text.data() + text.size() && std::isfinite(real)) {
    return real;
  }
  return text;
}

Result<json> Convert(const YAML::Node& yaml, int depth, std::size_t& left) {
  if (depth > kMaxDepth) return InvalidArgument("nested deeper than {}", kMaxDepth);
  if (left == 0) return InvalidArgument("too many values");
  --left;
  switch (yaml.Type()) {
    case YAML::NodeType::Undefined:
    case YAML::NodeType::Null: return json();
    case YAML::NodeType::Scalar: return Scalar(yaml);
    case YAML::NodeType::Sequence: {
      json list = json::array();
      for (const YAML::Node& item : yaml) list.push_back(CRISP_TRY(Convert(item, depth + 1, left)));
      return list;
    }
    case YAML::NodeType::Map: {
      json map = json::object();
      for (const auto& item : yaml) {
        if (!item.first.IsScalar()) return InvalidArgument("a key is no scalar");
        const std::string& key = item.first.Scalar();
        if (map.contains(key)) return InvalidArgument("the key \"{}\" is there twice", key);
        map[key] = CRISP_TRY(Convert(item.second, depth + 1, left));
      }
      return map;
    }
  }
  return InvalidArgument("an unknown kind of value");
}

}  // namespace

Result<json> YamlToJson(std::string_view yaml, std::size_t max_values) {
  try {
    const YAML::Node root = YAML::Load(std::string(yaml));
    std::size_t left = max_values;
    return Convert(root, 0, left);
  } catch (const YAML::Exception& error) {
    return InvalidArgument("not YAML: {}", error.what());
  }
}

}  // namespace crisp::config
