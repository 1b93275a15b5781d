#pragma once

namespace crisp::internal {
/// Prints the location and the broken condition to stderr, then aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);
}  // namespace crisp::internal

/// An invariant of our own code. Never for input from outside: dying is cheap for us, but only for
/// our own bugs.
#define CRISP_CHECK(condition)        \
  ((condition) ? static_cast<void>(0) \
               : ::crisp::internal::CheckFailed(__FILE__, __LINE__, #condition))
