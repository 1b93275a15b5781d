#include "libs/json/json.h"

#include <algorithm>
#include <set>
#include <utility>

#include "libs/base/try.h"

namespace crisp::json {
namespace {

using nlohmann::json;

/// Counts the depth before anything is built: the parser itself has no bound, and the destructor
/// of a deep value recurses. Quotes are the only thing that hides a bracket.
Status CheckDepth(std::string_view text, std::size_t max_depth) {
  std::size_t depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        quoted = false;
      }
      continue;
    }
    if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth > max_depth) {
        return InvalidArgument("JSON: nested deeper than {} at byte {}", max_depth, i);
      }
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return Status::Ok();
}

/// Looks for keys that an object has twice, while it is parsed.
struct KeyCheck {
  std::string twice;

  void On(json::parse_event_t event, const json& value) {
    if (event == json::parse_event_t::object_start) seen_.emplace_back();
    if (event == json::parse_event_t::object_end) seen_.pop_back();
    if (event != json::parse_event_t::key) return;
    const auto& key = value.get_ref<const std::string&>();
    if (!seen_.back().insert(key).second && twice.empty()) twice = key;
  }

 private:
  std::vector<std::set<std::string>> seen_;  // of the objects that are open
};

Status WrongType(std::string_view key, std::string_view expected, const json& value) {
  return InvalidArgument("{}: {} is expected, got {}", key, expected, value.type_name());
}

/// The member, or null when it is absent or null; an error when something on the way is no object.
Result<const json*> Look(const json& object, std::string_view key) {
  const json* at = &object;
  std::string_view rest = key;
  while (true) {
    if (!at->is_object()) {
      if (at != &object && at->is_null()) return nullptr;
      const std::string_view where = key.substr(0, key.size() - rest.size());
      return WrongType(where.empty() ? key : where.substr(0, where.size() - 1), "an object", *at);
    }
    // A key that itself has dots ("a.b/c") wins over a path.
    if (const auto whole = at->find(std::string(rest)); whole != at->end()) {
      return whole->is_null() ? nullptr : &*whole;
    }
    const std::size_t dot = rest.find('.');
    if (dot == std::string_view::npos) return nullptr;
    const auto member = at->find(std::string(rest.substr(0, dot)));
    if (member == at->end()) return nullptr;
    at = &*member;
    rest.remove_prefix(dot + 1);
  }
}

Result<const json*> Need(const json& object, std::string_view key) {
  const json* value = CRISP_TRY(Look(object, key));
  if (value == nullptr) return InvalidArgument("{}: is missing", key);
  return value;
}

Result<std::string> AsString(const json& value, std::string_view key) {
  if (!value.is_string()) return WrongType(key, "a string", value);
  return value.get_ref<const std::string&>();
}

Result<std::int64_t> AsInt(const json& value, std::string_view key) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (!std::in_range<std::int64_t>(number)) return InvalidArgument("{}: is too large", key);
    return static_cast<std::int64_t>(number);
  }
  if (!value.is_number_integer()) return WrongType(key, "an integer", value);
  return value.get<std::int64_t>();
}

}  // namespace

Result<json> Parse(std::string_view text, const Limits& limits) {
  if (text.size() > limits.max_bytes) {
    return ResourceExhausted("JSON: {} bytes, more than {}", text.size(), limits.max_bytes);
  }
  CRISP_TRY(CheckDepth(text, limits.max_depth));
  KeyCheck keys;
  const json::parser_callback_t watch = [&keys](int, json::parse_event_t event, json& value) {
    keys.On(event, value);
    return true;
  };
  try {
    json value = json::parse(text.begin(), text.end(), limits.unique_keys ? watch : nullptr);
    if (!keys.twice.empty())
      return InvalidArgument("JSON: the key {:.64} is there twice", keys.twice);
    return value;
  } catch (const json::parse_error& error) {
    return InvalidArgument("JSON: wrong at byte {}", error.byte);
  } catch (const json::exception& error) {
    return InvalidArgument("JSON: {}", error.what());  // numbers out of range
  }
}

Result<json> ParseFile(std::string_view text, const std::string& name, const Limits& limits) {
  if (text.size() > limits.max_bytes)
    return ResourceExhausted("{}: has more than {} bytes", name, limits.max_bytes);
  const auto line_at = [&text](std::size_t byte) {
    return 1 + std::count(text.begin(),
                          text.begin() + static_cast<std::ptrdiff_t>(std::min(byte, text.size())),
                          '\n');
  };
  if (!CheckDepth(text, limits.max_depth).ok())
    return InvalidArgument("{}: is nested deeper than {}", name, limits.max_depth);
  try {
    return json::parse(text.begin(), text.end());
  } catch (const json::parse_error& error) {
    // The parser counts from 1 and stands behind the byte that it refuses.
    return InvalidArgument("{}:{}: is not JSON", name,
                           line_at(error.byte > 0 ? error.byte - 1 : 0));
  } catch (const json::exception&) {
    return InvalidArgument("{}: has a number out of range", name);
  }
}

const json* Find(const json& object, std::string_view key) {
  const Result<const json*> found = Look(object, key);
  return found.ok() ? *found : nullptr;
}

Result<std::string> GetString(const json& object, std::string_view key) {
  return AsString(*CRISP_TRY(Need(object, key)), key);
}

Result<std::string> OptString(const json& object, std::string_view key, std::string fallback) {
  const json* value = CRISP_TRY(Look(object, key));
  if (value == nullptr) return fallback;
  return AsString(*value, key);
}

Result<std::int64_t> GetInt(const json& object, std::string_view key) {
  return AsInt(*CRISP_TRY(Need(object, key)), key);
}

Result<std::int64_t> OptInt(const json& object, std::string_view key, std::int64_t fallback) {
  const json* value = CRISP_TRY(Look(object, key));
  if (value == nullptr) return fallback;
  return AsInt(*value, key);
}

Result<bool> OptBool(const json& object, std::string_view key, bool fallback) {
  const json* value = CRISP_TRY(Look(object, key));
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return WrongType(key, "true or false", *value);
  return value->get<bool>();
}

Result<json> OptArray(const json& object, std::string_view key) {
  const json* value = CRISP_TRY(Look(object, key));
  if (value == nullptr) return json(json::value_t::array);
  if (!value->is_array()) return WrongType(key, "an array", *value);
  return json(*value);
}

Result<json> GetArray(const json& object, std::string_view key) {
  CRISP_TRY(Need(object, key));
  return OptArray(object, key);
}

Result<json> OptObject(const json& object, std::string_view key) {
  const json* value = CRISP_TRY(Look(object, key));
  if (value == nullptr) return json(json::value_t::object);
  if (!value->is_object()) return WrongType(key, "an object", *value);
  return json(*value);
}

Result<json> GetObject(const json& object, std::string_view key) {
  CRISP_TRY(Need(object, key));
  return OptObject(object, key);
}

Result<std::vector<std::string>> OptStrings(const json& object, std::string_view key) {
  std::vector<std::string> texts;
  const json* value = CRISP_TRY(Look(object, key));
  if (value == nullptr) return texts;
  if (!value->is_array()) return WrongType(key, "an array", *value);
  for (const json& item : *value) {
    texts.push_back(CRISP_TRY(AsString(item, fmt::format("{}[{}]", key, texts.size()))));
  }
  return texts;
}

std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace crisp::json
