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
class Depth {
 public:
  explicit Depth(std::size_t most) : most_(most) {}

  /// Takes the next byte; false when that is nested too deep.
  bool Take(char c) {
    if (escaped_) {
      escaped_ = false;
    } else if (quoted_) {
      escaped_ = c == '\\';
      quoted_ = c != '"';
    } else if (c == '"') {
      quoted_ = true;
    } else if (c == '[' || c == '{') {
      return ++depth_ <= most_;
    } else if ((c == ']' || c == '}') && depth_ > 0) {
      --depth_;
    }
    return true;
  }

 private:
  const std::size_t most_;
  std::size_t depth_ = 0;
  bool quoted_ = false;
  bool escaped_ = false;
};

Status TooDeep(std::size_t max_depth, std::size_t byte) {
  return InvalidArgument("JSON: nested deeper than {} at byte {}", max_depth, byte);
}

Status CheckDepth(std::string_view text, std::size_t max_depth) {
  Depth depth(max_depth);
  for (std::size_t i = 0; i < text.size(); ++i)
    if (!depth.Take(text[i])) return TooDeep(max_depth, i);
  return Status::Ok();
}

/// A text that comes piece by piece, byte by byte for the parser. It ends early when something is
/// wrong with it.
class Pieces {
 public:
  Pieces(const std::function<Result<std::string_view>()>& next, const ItemLimits& limits)
      : next_(next), limits_(limits), depth_(limits.max_depth) {}

  /// False at the end.
  bool Fill() {
    if (at_ < piece_.size()) return true;
    if (ended_ || !status_.ok()) return false;
    Result<std::string_view> piece = next_();
    at_ = 0;
    piece_ = piece.ok() ? *piece : std::string_view();
    ended_ = piece_.empty();
    if (!piece.ok()) End(std::move(piece).status());
    return !ended_;
  }
  char Front() const { return piece_[at_]; }
  void Pop() {
    const bool deep = !depth_.Take(piece_[at_++]);
    ++taken_;
    if (deep) End(TooDeep(limits_.max_depth, taken_));
    if (taken_ > limits_.max_bytes)
      End(ResourceExhausted("JSON: more than {} bytes", limits_.max_bytes));
    if (taken_ - item_end_ > limits_.max_item)
      End(ResourceExhausted("JSON: {} bytes without an item before byte {}", limits_.max_item,
                            taken_));
  }
  void ItemEnds() { item_end_ = taken_; }
  void End(Status why) {
    if (status_.ok()) status_ = std::move(why);
    piece_ = {};
    at_ = 0;
  }
  const Status& status() const { return status_; }

 private:
  const std::function<Result<std::string_view>()>& next_;
  const ItemLimits& limits_;
  Depth depth_;
  Status status_;
  std::string_view piece_;
  std::size_t at_ = 0;
  std::size_t taken_ = 0;
  std::size_t item_end_ = 0;
  bool ended_ = false;
};

/// What nlohmann's parser reads Pieces by.
class PiecesIterator {
 public:
  using iterator_category = std::input_iterator_tag;  // NOLINT(readability-identifier-naming)
  using value_type = char;                            // NOLINT(readability-identifier-naming)
  using difference_type = std::ptrdiff_t;             // NOLINT(readability-identifier-naming)
  using pointer = const char*;                        // NOLINT(readability-identifier-naming)
  using reference = char;                             // NOLINT(readability-identifier-naming)

  explicit PiecesIterator(Pieces* pieces = nullptr) : pieces_(pieces) {}
  char operator*() const { return pieces_->Front(); }
  PiecesIterator& operator++() {
    pieces_->Pop();
    return *this;
  }
  void operator++(int) { ++*this; }
  bool operator==(const PiecesIterator& /*end*/) const { return !pieces_->Fill(); }

 private:
  Pieces* pieces_;
};

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

Result<json> ParseItems(const std::function<Result<std::string_view>()>& next, std::string_view key,
                        const std::function<Status(const json&)>& item, const ItemLimits& limits) {
  constexpr int kMember = 1;  // depth of the top object's keys and values
  constexpr int kItem = 2;
  Pieces pieces(next, limits);
  bool inside = false;  // the array of that name
  const json::parser_callback_t watch = [&](int depth, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::key && depth == kMember)
      inside = value.get_ref<const std::string&>() == key;
    if (!inside || depth != kItem || event != json::parse_event_t::object_end) return true;
    pieces.ItemEnds();
    if (pieces.status().ok())
      if (Status status = item(value); !status.ok()) pieces.End(std::move(status));
    return false;
  };
  try {
    json rest = json::parse(PiecesIterator(&pieces), PiecesIterator(), watch);
    CRISP_TRY(Status(pieces.status()));
    return rest;
  } catch (const json::parse_error& error) {
    CRISP_TRY(Status(pieces.status()));
    return InvalidArgument("JSON: wrong at byte {}", error.byte);
  } catch (const json::exception& error) {
    CRISP_TRY(Status(pieces.status()));
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
