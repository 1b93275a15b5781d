#include "libs/config/toml.h"

#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include <algorithm>

#include "libs/base/try.h"

namespace crisp::config {
namespace {

constexpr std::size_t kMaxSize = std::size_t{4} << 20U;

TomlValue FromNode(const toml::node& node) {
  TomlValue value;
  value.line = static_cast<std::int64_t>(node.source().begin.line);
  if (const toml::table* table = node.as_table()) {
    for (const auto& [key, member] : *table) {
      TomlValue each = FromNode(member);
      // A table's own place is its header's; a value without one is where its key is.
      if (each.line == 0) each.line = static_cast<std::int64_t>(key.source().begin.line);
      value.members.emplace_back(std::string(key.str()), std::move(each));
    }
    // The library sorts by key; the file's order is what some of the formats mean.
    std::stable_sort(value.members.begin(), value.members.end(),
                     [](const auto& a, const auto& b) { return a.second.line < b.second.line; });
  } else if (const toml::array* array = node.as_array()) {
    value.kind = TomlValue::Kind::kArray;
    for (const toml::node& item : *array) value.items.push_back(FromNode(item));
  } else if (const auto* text = node.as_string()) {
    value.kind = TomlValue::Kind::kString;
    value.text = text->get();
  } else if (const auto* integer = node.as_integer()) {
    value.kind = TomlValue::Kind::kInteger;
    value.integer = integer->get();
  } else if (const auto* boolean = node.as_boolean()) {
    value.kind = TomlValue::Kind::kBool;
    value.boolean = boolean->get();
  } else {
    value.kind = TomlValue::Kind::kOther;
  }
  return value;
}

Result<std::vector<std::string>> AllTexts(const TomlTable& table, std::string_view key,
                                          const TomlValue& array) {
  std::vector<std::string> texts;
  if (array.kind != TomlValue::Kind::kArray)
    return table.Wrong(key, "an array of strings is expected");
  for (const TomlValue& item : array.items) {
    if (item.kind != TomlValue::Kind::kString)
      return table.Wrong(key, "an array of strings is expected");
    texts.push_back(item.text);
  }
  return texts;
}

}  // namespace

TomlValue::TomlValue() = default;
TomlValue::TomlValue(const TomlValue& other) = default;
TomlValue::TomlValue(TomlValue&& other) noexcept = default;
TomlValue& TomlValue::operator=(const TomlValue& other) = default;
TomlValue& TomlValue::operator=(TomlValue&& other) noexcept = default;
TomlValue::~TomlValue() = default;

const TomlValue* TomlValue::Find(std::string_view key) const {
  for (const auto& [name, value] : members)
    if (name == key) return &value;
  return nullptr;
}

Result<TomlValue> ParseToml(std::string_view text, const std::string& name) {
  if (text.size() > kMaxSize) return InvalidArgument("{}: is larger than 4 MiB", name);
  try {
    return FromNode(toml::parse(text, name));
  } catch (const toml::parse_error& error) {
    return InvalidArgument("{}:{}: {}", name, error.source().begin.line, error.description());
  }
}

Status TomlTable::Wrong(std::string_view key, std::string_view why) const {
  const TomlValue* at = value_.Find(key);
  const std::int64_t line = at != nullptr ? at->line : value_.line;
  if (key.empty()) return InvalidArgument("{}:{}: {}", file_, line, why);
  return InvalidArgument("{}:{}: {}: {}", file_, line, key, why);
}

Result<std::string> TomlTable::Text(std::string_view key, std::string fallback) const {
  const TomlValue* at = value_.Find(key);
  if (at == nullptr) return fallback;
  if (at->kind != TomlValue::Kind::kString) return Wrong(key, "a string is expected");
  return at->text;
}

Result<bool> TomlTable::Bool(std::string_view key, bool fallback) const {
  const TomlValue* at = value_.Find(key);
  if (at == nullptr) return fallback;
  if (at->kind != TomlValue::Kind::kBool) return Wrong(key, "true or false is expected");
  return at->boolean;
}

Result<std::vector<std::string>> TomlTable::Texts(std::string_view key) const {
  const TomlValue* at = value_.Find(key);
  if (at == nullptr) return std::vector<std::string>();
  return AllTexts(*this, key, *at);
}

Result<std::vector<std::string>> TomlTable::TextOrTexts(std::string_view key) const {
  const TomlValue* at = value_.Find(key);
  if (at != nullptr && at->kind == TomlValue::Kind::kString) return std::vector{at->text};
  return Texts(key);
}

Result<TomlTable> TomlTable::Table(std::string_view key) const {
  static const TomlValue kNone;
  const TomlValue* at = value_.Find(key);
  if (at == nullptr) return TomlTable(kNone, file_);
  if (at->kind != TomlValue::Kind::kTable) return Wrong(key, "a table is expected");
  return TomlTable(*at, file_);
}

Result<std::vector<TomlTable>> TomlTable::Tables(std::string_view key) const {
  std::vector<TomlTable> tables;
  const TomlValue* at = value_.Find(key);
  if (at == nullptr) return tables;
  if (at->kind != TomlValue::Kind::kArray) return Wrong(key, "an array of tables is expected");
  for (const TomlValue& item : at->items) {
    if (item.kind != TomlValue::Kind::kTable) return Wrong(key, "an array of tables is expected");
    tables.emplace_back(item, file_);
  }
  return tables;
}

std::vector<std::string> TomlTable::Unknown(const std::vector<std::string_view>& known) const {
  std::vector<std::string> unknown;
  for (const auto& [name, value] : value_.members)
    if (std::find(known.begin(), known.end(), name) == known.end()) unknown.push_back(name);
  return unknown;
}

}  // namespace crisp::config
