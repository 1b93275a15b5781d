#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/base/result.h"

namespace crisp::config {

/// A TOML document as plain values, each with the line that it is on: for the files that container
/// tools share (registries.conf, hosts.toml). Our own settings are YAML: schema.h.
struct TomlValue {
  enum class Kind { kTable, kArray, kString, kInteger, kBool, kOther };

  Kind kind = Kind::kTable;
  std::int64_t line = 0;
  std::string text;                                        // kString
  std::int64_t integer = 0;                                // kInteger
  bool boolean = false;                                    // kBool
  std::vector<TomlValue> items;                            // kArray
  std::vector<std::pair<std::string, TomlValue>> members;  // kTable, in the order of the file

  // Not by themselves: a clang that looks into the members' pairs for them finds half a class.
  TomlValue();
  TomlValue(const TomlValue& other);
  TomlValue(TomlValue&& other) noexcept;
  TomlValue& operator=(const TomlValue& other);
  TomlValue& operator=(TomlValue&& other) noexcept;
  ~TomlValue();

  const TomlValue* Find(std::string_view key) const;
};

/// kInvalidArgument: "name:line: what is wrong"; also for a document above 4 MiB.
Result<TomlValue> ParseToml(std::string_view text, const std::string& name);

/// Typed access to one table. Absent keys give the fallback, wrong types kInvalidArgument
/// ("file:line: key: a string is expected"). Keeps references: for a local variable.
class TomlTable {
 public:
  TomlTable(const TomlValue& value, const std::string& file) : value_(value), file_(file) {}

  const TomlValue& value() const { return value_; }
  bool Has(std::string_view key) const { return value_.Find(key) != nullptr; }
  Result<std::string> Text(std::string_view key, std::string fallback = {}) const;
  Result<bool> Bool(std::string_view key, bool fallback) const;
  /// An array of strings.
  Result<std::vector<std::string>> Texts(std::string_view key) const;
  /// A string or an array of strings.
  Result<std::vector<std::string>> TextOrTexts(std::string_view key) const;
  /// A table; absent: an empty one.
  Result<TomlTable> Table(std::string_view key) const;
  /// An array of tables ([[key]]).
  Result<std::vector<TomlTable>> Tables(std::string_view key) const;
  /// Keys that are none of `known`, for a warning: newer tools may know more than we do.
  std::vector<std::string> Unknown(const std::vector<std::string_view>& known) const;
  /// kInvalidArgument that names the file and the line of `key` (of the table when it is absent).
  Status Wrong(std::string_view key, std::string_view why) const;

 private:
  const TomlValue& value_;
  const std::string& file_;
};

}  // namespace crisp::config
