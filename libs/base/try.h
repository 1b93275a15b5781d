#pragma once

#include <utility>

#include "libs/base/result.h"
#include "libs/base/status.h"

namespace crisp::internal {

inline Status TakeStatus(Status&& status) { return std::move(status); }
template <typename T>
Status TakeStatus(Result<T>&& result) {
  return std::move(result).status();
}
inline void TakeValue(Status&&) {}
template <typename T>
T TakeValue(Result<T>&& result) {
  return std::move(result).value();
}

}  // namespace crisp::internal

/// The value of a Result, or nothing for a Status; on failure the enclosing function returns the
/// Status at once. `UniqueFd fd = CRISP_TRY(Open(path));`   `CRISP_TRY(Check(fd));` A GNU statement
/// expression (g++ and clang++ know it): no other spelling gives both early return and a value.
#define CRISP_TRY(...)                                                                       \
  __extension__({                                                                            \
    auto crisp_outcome = (__VA_ARGS__);                                                      \
    if (!crisp_outcome.ok()) return ::crisp::internal::TakeStatus(std::move(crisp_outcome)); \
    ::crisp::internal::TakeValue(std::move(crisp_outcome));                                  \
  })
