#pragma once

#include <optional>
#include <type_traits>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/status.h"

namespace crisp {

/// A T, or the Status that says why there is none. Never holds an Ok status without a value.
template <typename T>
class [[nodiscard]] Result {
 public:
  // NOLINTBEGIN(google-explicit-constructor): `return value;`, `return NotFound(...)` end functions
  template <typename U = T>
  requires(std::is_constructible_v<T, U&&> && !std::is_same_v<std::remove_cvref_t<U>, Status> &&
           !std::is_same_v<std::remove_cvref_t<U>, Result>) Result(U&& value)
      : value_(std::in_place, std::forward<U>(value)) {}
  Result(Status status) : status_(std::move(status)) {  // never Ok
    CRISP_CHECK(!status_.ok());
  }
  // NOLINTEND(google-explicit-constructor)
  bool ok() const { return value_.has_value(); }
  // No operator bool: `if (Exists(path))` on a Result<bool> would ask the wrong question.

  const Status& status() const& { return status_; }
  Status status() && { return std::move(status_); }
  Code code() const { return status_.code(); }

  T& value() & {
    CRISP_CHECK(ok());
    return *value_;
  }
  const T& value() const& {
    CRISP_CHECK(ok());
    return *value_;
  }
  T&& value() && {
    CRISP_CHECK(ok());
    return *std::move(value_);
  }
  T value_or(T fallback) && { return ok() ? *std::move(value_) : std::move(fallback); }

  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  /// Status::While for the failure; a value passes through.
  template <typename... Args>
  Result While(fmt::format_string<Args...> format, Args&&... args) && {
    if (ok()) return std::move(*this);
    return std::move(status_).While(format, std::forward<Args>(args)...);
  }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace crisp
