#include "services/crispctl/convert/option.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace crisp::ctl::convert {
namespace {

using config::TomlValue;

std::vector<std::string> Parts(std::string_view path) {
  std::vector<std::string> parts;
  while (!path.empty()) {
    const std::string_view part = path.substr(0, path.find('/'));
    parts.emplace_back(part);
    path.remove_prefix(std::min(path.size(), part.size() + 1));
  }
  return parts;
}

bool IsBareKey(const std::string& key) {
  return !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

}  // namespace

std::string Option::Name() const {
  std::string name;
  for (const std::string& part : written.empty() ? path : written) {
    if (!name.empty()) name += '.';
    name += IsBareKey(part) ? part : fmt::format("\"{}\"", part);
  }
  return name;
}

std::string Option::Where() const {
  return file.empty() ? "not set" : fmt::format("{}:{}", file, value.line);
}

bool Matches(std::string_view pattern, const std::vector<std::string>& path, std::string* name) {
  std::optional<std::string> found;
  std::size_t at = 0;
  while (!pattern.empty()) {
    const std::string_view part = pattern.substr(0, pattern.find('/'));
    pattern.remove_prefix(std::min(pattern.size(), part.size() + 1));
    if (part == "**") {
      at = path.size();
      break;
    }
    if (at == path.size() || (part != "*" && part != path[at])) return false;
    if (part == "*" && !found) found = path[at];
    ++at;
  }
  if (at != path.size()) return false;
  if (name != nullptr) *name = found.value_or("");
  return true;
}

void Options::Set(Option option) {
  const auto known = std::find_if(options_.begin(), options_.end(),
                                  [&option](const Option& one) { return one.path == option.path; });
  if (known == options_.end()) {
    options_.push_back(std::move(option));
    return;
  }
  option.over = std::move(known->over);
  option.over.push_back(known->Where());
  *known = std::move(option);
}

void Options::AddBelow(std::vector<std::string>& path, const TomlValue& value,
                       const std::string& file) {
  // An empty table is an option, too: a handler may have nothing but its name.
  if (value.kind != TomlValue::Kind::kTable || (value.members.empty() && !path.empty())) {
    Set({.path = path, .value = value, .file = file});
    return;
  }
  for (const auto& [key, member] : value.members) {
    path.push_back(key);
    AddBelow(path, member, file);
    path.pop_back();
  }
}

void Options::Add(const TomlValue& document, const std::string& file) {
  std::vector<std::string> path;
  AddBelow(path, document, file);
}

void Options::AddDefault(std::string_view path, const TomlValue& value) {
  const std::size_t star = path.find('*');
  std::vector<std::string> names = {""};
  if (star != path.npos) names = Names(fmt::format("{}/**", path.substr(0, star + 1)));
  for (const std::string& name : names) {
    std::vector<std::string> parts = Parts(path);
    std::replace(parts.begin(), parts.end(), std::string("*"), name);
    const bool known = std::any_of(options_.begin(), options_.end(),
                                   [&parts](const Option& one) { return one.path == parts; });
    if (!known) options_.push_back({.path = parts, .value = value});
  }
}

void Options::Rename(std::vector<std::string> (*rename)(const std::vector<std::string>& path)) {
  std::vector<Option> old;
  old.swap(options_);
  for (Option& option : old) {
    std::vector<std::string> path = rename(option.path);
    if (path != option.path) {
      option.written = std::move(option.path);
      option.path = std::move(path);
    }
    Set(std::move(option));
  }
}

void Options::Erase(std::string_view pattern) {
  std::erase_if(options_,
                [pattern](const Option& one) { return Matches(pattern, one.path, nullptr); });
}

const Option* Options::Find(std::string_view path) const {
  const std::vector<std::string> parts = Parts(path);
  const auto found = std::find_if(options_.begin(), options_.end(),
                                  [&parts](const Option& one) { return one.path == parts; });
  return found == options_.end() ? nullptr : &*found;
}

std::string Options::Text(std::string_view path, const std::string& fallback) const {
  const Option* option = Find(path);
  return option == nullptr || option->value.text.empty() ? fallback : option->value.text;
}

bool Options::Bool(std::string_view path) const {
  const Option* option = Find(path);
  return option != nullptr && option->value.boolean;
}

std::vector<std::string> Options::Names(std::string_view pattern) const {
  std::vector<std::string> names;
  std::string name;
  for (const Option& option : options_) {
    if (!Matches(pattern, option.path, &name)) continue;
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

}  // namespace crisp::ctl::convert
