#include "services/crispctl/convert/values.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "libs/base/try.h"
#include "libs/json/json.h"

namespace crisp::ctl::convert {
namespace {

using config::TomlValue;
using Kind = TomlValue::Kind;

std::string_view Trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// `each` entry of a list of texts.
template <typename Each>
Result<std::string> ListOf(const TomlValue& value, const Each& each) {
  std::vector<std::string> list = CRISP_TRY(Texts(value));
  std::transform(list.begin(), list.end(), list.begin(), each);
  return YamlList(list);
}

/// Seconds of one unit of a Go duration; 0: no such unit.
double UnitSeconds(std::string_view unit) {
  if (unit == "h") return 3600;
  if (unit == "m") return 60;
  if (unit == "s") return 1;
  if (unit == "ms") return 1e-3;
  if (unit == "us" || unit == "µs" || unit == "μs") return 1e-6;
  if (unit == "ns") return 1e-9;
  return 0;
}

}  // namespace

std::string YamlText(std::string_view text) { return json::Dump(nlohmann::json(text)); }

std::string YamlList(const std::vector<std::string>& list) {
  return json::Dump(nlohmann::json(list));  // JSON is YAML
}

Result<std::string> Text(const TomlValue& value) {
  if (value.kind != Kind::kString) return InvalidArgument("a string is expected");
  return YamlText(value.text);
}

Result<std::string> Bool(const TomlValue& value) {
  if (value.kind != Kind::kBool) return InvalidArgument("true or false is expected");
  return std::string(value.boolean ? "true" : "false");
}

Result<std::string> Number(const TomlValue& value) {
  if (value.kind != Kind::kInteger) return InvalidArgument("a number is expected");
  return std::to_string(value.integer);
}

Result<std::vector<std::string>> Texts(const TomlValue& value) {
  std::vector<std::string> texts;
  bool all = value.kind == Kind::kArray;
  for (const TomlValue& item : value.items) {
    all = all && item.kind == Kind::kString;
    texts.push_back(item.text);
  }
  if (!all) return InvalidArgument("an array of strings is expected");
  return texts;
}

Result<std::string> List(const TomlValue& value) { return YamlList(CRISP_TRY(Texts(value))); }

Result<std::string> ListOfOne(const TomlValue& value) {
  CRISP_TRY(Text(value));
  return YamlList({value.text});
}

Result<std::string> Seconds(const TomlValue& value) {
  CRISP_TRY(Text(value));
  return std::to_string(CRISP_TRY(GoDuration(value.text)).count());
}

Result<std::string> Program(const TomlValue& value) {
  CRISP_TRY(Text(value));
  const bool bare = value.text.find('/') == std::string::npos;
  return YamlText(bare ? "/usr/bin/" + value.text : value.text);
}

Result<std::string> Capabilities(const TomlValue& value) {
  return ListOf(value, [](const std::string& name) {
    constexpr std::string_view kPrefix = "CAP_";
    return name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
  });
}

Result<std::string> Sysctls(const TomlValue& value) {
  return ListOf(value, [](const std::string& one) {
    const std::string_view text = one;
    const std::size_t equals = text.find('=');
    if (equals == text.npos) return one;
    return fmt::format("{}={}", Trimmed(text.substr(0, equals)), Trimmed(text.substr(equals + 1)));
  });
}

Result<std::string> Ulimits(const TomlValue& value) {
  return ListOf(value, [](const std::string& one) {
    const std::size_t equals = one.find('=');
    if (equals == one.npos || one.find(':', equals) != one.npos) return one;
    return fmt::format("{}:{}", one, one.substr(equals + 1));
  });
}

Result<std::chrono::seconds> GoDuration(std::string_view text) {
  if (text == "0") return std::chrono::seconds(0);
  double sum = 0;
  std::string_view rest = text;
  bool known = !text.empty();
  while (known && !rest.empty()) {
    double count = 0;
    const auto [end, error] =
        std::from_chars(rest.data(), rest.data() + rest.size(), count, std::chars_format::fixed);
    known = error == std::errc() && count >= 0;
    if (!known) break;
    rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
    const std::string_view unit = rest.substr(0, rest.find_first_of("0123456789."));
    const double seconds = UnitSeconds(unit);
    known = seconds > 0;
    sum += count * seconds;
    rest.remove_prefix(unit.size());
  }
  if (!known || sum > 1e12) {
    return InvalidArgument("'{}' is no length of time", text);
  }
  return std::chrono::seconds(static_cast<std::int64_t>(std::ceil(sum)));
}

Result<std::string> LogLevel(std::string_view level) {
  if (level == "panic") return std::string("fatal");
  if (level == "warning") return std::string("warn");
  for (const char* same : {"fatal", "error", "warn", "info", "debug", "trace"}) {
    if (level == same) return std::string(level);
  }
  return InvalidArgument("'{}' is no log level", level);
}

std::string HostPort(const std::string& host, const std::string& port) {
  return host.find(':') == host.npos || host.front() == '[' ? fmt::format("{}:{}", host, port)
                                                            : fmt::format("[{}]:{}", host, port);
}

bool IsOff(const TomlValue& value) {
  switch (value.kind) {
    case Kind::kBool: return !value.boolean;
    case Kind::kInteger: return value.integer <= 0;
    case Kind::kArray: return value.items.empty();
    case Kind::kString: return value.text.empty() || value.text == "0" || value.text == "0s";
    case Kind::kTable: return value.members.empty();
    case Kind::kOther: return false;
  }
  return false;
}

TomlValue TomlOf(std::string_view text) {
  TomlValue value;
  value.kind = Kind::kString;
  value.text = text;
  return value;
}

TomlValue TomlOf(const std::vector<std::string>& list) {
  TomlValue value;
  value.kind = Kind::kArray;
  for (const std::string& text : list) value.items.push_back(TomlOf(text));
  return value;
}

TomlValue TomlBool(bool truth) {
  TomlValue value;
  value.kind = Kind::kBool;
  value.boolean = truth;
  return value;
}

}  // namespace crisp::ctl::convert
