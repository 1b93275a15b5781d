#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"

namespace crisp::json {

struct Limits {
  std::size_t max_bytes = std::size_t{4} << 20U;
  std::size_t max_depth = 64;
  bool unique_keys = false;  // of an object; else the last of two holds
};

/// RFC 8259, nothing after the value. kInvalidArgument with the offset of what is wrong, or when it
/// is nested too deep, or a key that is there twice; kResourceExhausted when it is too long.
Result<nlohmann::json> Parse(std::string_view text, const Limits& limits = {});

struct ItemLimits {
  std::size_t max_bytes = std::size_t{64} << 20U;
  std::size_t max_item = std::size_t{1} << 20U;  // between the ends of two items: bounds the memory
  std::size_t max_depth = 16;
};

/// A document that is too large to be held, of which one member `key` of the top object is an array
/// of many objects: each is given to `item` as soon as it is read, then forgotten. `next` answers
/// the next piece of the text, empty at the end. The answer is the object without the items. Errors
/// as of Parse; those of `next` and `item` end it and pass through.
Result<nlohmann::json> ParseItems(const std::function<Result<std::string_view>()>& next,
                                  std::string_view key,
                                  const std::function<Status(const nlohmann::json&)>& item,
                                  const ItemLimits& limits = {});

/// A file of an operator's: what is wrong is told as "name:line: …", without a byte of the text,
/// which may hold secrets.
Result<nlohmann::json> ParseFile(std::string_view text, const std::string& name,
                                 const Limits& limits = {});

// Getters of an object's members. `key` may be a path: "linux.cgroupsPath". A wrong type is
// kInvalidArgument ("linux.cgroupsPath: a string is expected, got number"), also when `object` is
// not one. Get…: absent (or null) is kInvalidArgument too. Opt…: absent or null is the fallback.
Result<std::string> GetString(const nlohmann::json& object, std::string_view key);
Result<std::string> OptString(const nlohmann::json& object, std::string_view key,
                              std::string fallback = {});
Result<std::int64_t> GetInt(const nlohmann::json& object, std::string_view key);
Result<std::int64_t> OptInt(const nlohmann::json& object, std::string_view key,
                            std::int64_t fallback = 0);
Result<bool> OptBool(const nlohmann::json& object, std::string_view key, bool fallback = false);
/// The array itself (a copy); absent: empty.
Result<nlohmann::json> GetArray(const nlohmann::json& object, std::string_view key);
Result<nlohmann::json> OptArray(const nlohmann::json& object, std::string_view key);
Result<nlohmann::json> GetObject(const nlohmann::json& object, std::string_view key);
Result<nlohmann::json> OptObject(const nlohmann::json& object, std::string_view key);
Result<std::vector<std::string>> OptStrings(const nlohmann::json& object, std::string_view key);

/// The member at a path, or null without one; never fails.
const nlohmann::json* Find(const nlohmann::json& object, std::string_view key);

/// Compact text; bytes that are not UTF-8 become U+FFFD (no exception).
std::string Dump(const nlohmann::json& value);

}  // namespace crisp::json
