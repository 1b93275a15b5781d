#pragma once

#include <compare>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace crisp {

/// A string that is one kind of identifier and no other: two strings side by side are a bug
/// waiting.
template <typename Tag>
class StrongId {
 public:
  StrongId() = default;
  explicit StrongId(std::string value) : value_(std::move(value)) {}

  const std::string& str() const { return value_; }
  bool empty() const { return value_.empty(); }
  /// The first 12 characters: how people quote ids.
  std::string_view Short() const { return std::string_view(value_).substr(0, 12); }

  auto operator<=>(const StrongId&) const = default;
  friend std::ostream& operator<<(std::ostream& out, const StrongId& id) {
    return out << id.value_;
  }

 private:
  std::string value_;
};

}  // namespace crisp

template <typename Tag>
struct std::hash<crisp::StrongId<Tag>> {
  std::size_t operator()(const crisp::StrongId<Tag>& id) const noexcept {
    return std::hash<std::string>()(id.str());
  }
};

template <typename Tag>
struct fmt::formatter<crisp::StrongId<Tag>> : fmt::formatter<std::string> {
  template <typename Context>
  auto format(const crisp::StrongId<Tag>& id, Context& context) const {
    return fmt::formatter<std::string>::format(id.str(), context);
  }
};
