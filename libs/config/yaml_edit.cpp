#include "libs/config/yaml_edit.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

namespace crisp::config {
namespace {

/// Copies all of `old` but the key that `value` goes to: yaml-cpp's own assignment changes nodes
/// that share their memory with others.
YAML::Node With(const YAML::Node& old, const std::string* path, std::size_t depth,
                const YAML::Node& value) {
  if (depth == 0) return value;
  YAML::Node map(YAML::NodeType::Map);
  YAML::Node below;
  if (old.IsMap()) {
    for (const auto& pair : old) {
      if (pair.first.Scalar() == *path) {
        below.reset(pair.second);
      } else {
        map.force_insert(pair.first, pair.second);
      }
    }
  }
  map.force_insert(*path, With(below, path + 1, depth - 1, value));
  return map;
}

}  // namespace

Result<std::string> WithValue(std::string_view yaml, const std::vector<std::string>& path,
                              std::string_view value) {
  try {
    const YAML::Node old = YAML::Load(std::string(yaml));
    if (!old.IsMap() && !old.IsNull()) return InvalidArgument("is no map of keys");
    YAML::Node given = YAML::Load(std::string(value));
    if (given.IsMap() || given.IsSequence()) given.SetStyle(YAML::EmitterStyle::Flow);
    YAML::Emitter out;
    out << With(old, path.data(), path.size(), given);
    return fmt::format("{}\n", out.c_str());
  } catch (const YAML::Exception& e) {
    return InvalidArgument("{}", e.msg);
  }
}

}  // namespace crisp::config
