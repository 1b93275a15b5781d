#include "services/crispctl/debug/redact.h"

#include <array>
#include <cctype>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/json/json.h"

namespace crisp::ctl::debug {
namespace {

using nlohmann::json;

/// Parts of names whose value is a secret.
constexpr std::array<std::string_view, 10> kSecretNames = {
    "password", "passwd",  "secret",  "token",      "authorization",
    "apikey",   "api_key", "api-key", "credential", "private_key"};

/// Where a secret lies is none.
bool IsPlace(std::string_view lower) {
  for (const std::string_view end : {"_dir", "_dirs", "_file", "_files", "_path"}) {
    if (lower.ends_with(end)) return true;
  }
  return false;
}

bool IsSecretName(std::string_view name) {
  const std::string lower = Lower(name);
  if (IsPlace(lower)) return false;
  for (const std::string_view part : kSecretNames) {
    if (lower.find(part) != lower.npos) return true;
  }
  return lower == "auth";
}

bool IsNameChar(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' || c == '.';
}

bool EndsValue(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == ',' || c == ';' || c == '&' || c == '}' ||
         c == ')' || c == ']';
}

/// https://joe:hunter2@host → https://<redacted>@host
std::string WithoutUrlUsers(std::string_view text) {
  constexpr std::string_view kScheme = "://";
  std::string out;
  while (true) {
    const std::size_t scheme = text.find(kScheme);
    if (scheme == text.npos) break;
    const std::size_t begin = scheme + kScheme.size();
    const std::size_t end = std::min(text.find_first_of(" \t\n/?#\"'<>", begin), text.size());
    const std::size_t at = text.substr(0, end).rfind('@');
    out += text.substr(0, begin);
    if (at != text.npos && at >= begin) {
      out += kRedacted;
      text.remove_prefix(at);
    } else {
      text.remove_prefix(begin);
    }
  }
  return out.append(text);
}

/// The end of a value that begins at `at`: of a quoted one its closing quote, of others the next
/// blank or separator.
std::size_t ValueEnd(std::string_view text, std::size_t at) {
  if (at < text.size() && (text[at] == '"' || text[at] == '\'')) {
    const std::size_t quote = text.find(text[at], at + 1);
    if (quote != text.npos) return quote + 1;
  }
  while (at < text.size() && !EndsValue(text[at])) ++at;
  return at;
}

/// password=hunter2, "token": "x", --secret x, Authorization: Bearer x
std::string WithoutNamedSecrets(std::string_view text) {
  std::string out;
  std::size_t at = 0;
  while (at < text.size()) {
    if (!IsNameChar(text[at])) {
      out += text[at++];
      continue;
    }
    std::size_t end = at;
    while (end < text.size() && IsNameChar(text[end])) ++end;
    const std::string_view name = text.substr(at, end - at);
    out += name;
    at = end;
    const bool option = name.starts_with("--");
    if (!IsSecretName(name)) continue;
    // What is between the name and the value.
    std::size_t value = at;
    while (value < text.size() && (text[value] == '"' || text[value] == '\'')) ++value;
    while (value < text.size() && text[value] == ' ') ++value;
    const bool assigned = value < text.size() && (text[value] == '=' || text[value] == ':');
    if (!assigned && !(option && value > at)) continue;
    if (assigned) ++value;
    while (value < text.size() && text[value] == ' ') ++value;
    for (const std::string_view scheme : {"Bearer ", "Basic ", "bearer ", "basic "}) {
      if (text.substr(value).starts_with(scheme)) value += scheme.size();
    }
    const std::size_t value_end = ValueEnd(text, value);
    if (value_end == value) continue;
    out += text.substr(at, value - at);
    out += kRedacted;
    at = value_end;
  }
  return out;
}

std::string WithoutPrivateKeys(std::string_view text) {
  constexpr std::string_view kEnd = "-----END ";
  std::string out;
  while (true) {
    const std::size_t word = text.find("PRIVATE KEY-----");
    const std::size_t begin = text.substr(0, word).rfind("-----BEGIN ");
    if (word == text.npos || begin == text.npos) break;
    out += text.substr(0, begin);
    out += kRedacted;
    const std::size_t end = text.find(kEnd, word);
    if (end == text.npos) return out;  // cut off: all that follows is of the key
    const std::size_t line = text.find("-----", end + kEnd.size());
    text.remove_prefix(line == text.npos ? text.size() : line + 5);
  }
  return out.append(text);
}

/// "NAME=value" keeps its name.
std::string WithoutValue(const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  if (equals == assignment.npos) return std::string(kRedacted);
  return assignment.substr(0, equals + 1).append(kRedacted);
}

bool IsEnvironment(std::string_view name) {
  return name == "env" || name == "envs" || name == "environment" || name == "default_env" ||
         name == "monitor_env" || name == "Env";
}

/// An environment is a list of "NAME=value", or of {key, value}.
json RedactEnvironment(const json& value) {
  if (value.is_string()) return WithoutValue(value.get<std::string>());
  if (value.is_array()) {
    json list = json::array();
    for (const json& one : value) list.push_back(RedactEnvironment(one));
    return list;
  }
  if (value.is_object()) {
    json map = json::object();
    for (const auto& [key, one] : value.items()) {
      map[key] = key == "key" || key == "name" ? one : json(kRedacted);
    }
    return map;
  }
  return kRedacted;
}

json RedactValues(const json& map) {
  if (!map.is_object()) return kRedacted;
  json out = json::object();
  for (const auto& [key, one] : map.items()) out[key] = kRedacted;
  return out;
}

/// A text may be a document of its own. One that begins so and is none might hold anything.
json RedactString(const std::string& text) {
  if (text.starts_with('{') || text.starts_with('[')) {
    const auto inner = json::parse(text, nullptr, /*allow_exceptions=*/false);
    return inner.is_discarded() ? json(kRedacted) : RedactJson(inner);
  }
  return RedactText(text);
}

json RedactMember(const std::string& name, const json& value) {
  if (IsEnvironment(name)) return RedactEnvironment(value);
  if (name == "annotations") return RedactValues(value);
  if (IsSecretName(name) && !value.is_object() && !value.is_boolean()) return kRedacted;
  return RedactJson(value);
}

/// What follows a word like --password is its value.
json RedactList(const json& list) {
  json out = json::array();
  bool secret = false;
  for (const json& one : list) {
    out.push_back(secret && one.is_string() ? json(kRedacted) : RedactJson(one));
    secret = one.is_string() && one.get_ref<const std::string&>().starts_with("-") &&
             one.get_ref<const std::string&>().find('=') == std::string::npos &&
             IsSecretName(one.get_ref<const std::string&>());
  }
  return out;
}

}  // namespace

std::string RedactText(std::string_view text) {
  return WithoutNamedSecrets(WithoutUrlUsers(WithoutPrivateKeys(text)));
}

json RedactJson(const json& value) {
  if (value.is_string()) return RedactString(value.get<std::string>());
  if (value.is_array()) return RedactList(value);
  if (!value.is_object()) return value;
  json map = json::object();
  for (const auto& [key, one] : value.items()) map[key] = RedactMember(key, one);
  return map;
}

Result<std::string> RedactDocument(const std::string& text) {
  const json parsed = CRISP_TRY(crisp::json::Parse(text, {.max_bytes = std::size_t{64} << 20U}));
  return RedactJson(parsed).dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

settings::Settings RedactSettings(settings::Settings settings) {
  for (std::string& one : settings.rund.default_env) one = WithoutValue(one);
  for (auto& [name, runtime] : settings.rund.runtimes) {
    for (std::string& one : runtime.monitor_env) one = WithoutValue(one);
  }
  return settings;
}

}  // namespace crisp::ctl::debug
