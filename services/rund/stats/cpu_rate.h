#pragma once

#include <cstdint>
#include <optional>

namespace crisp::rund {

/// Nano cores (10^9 is one core) from CPU times that are read now and then: over the time since a
/// reading that lies at least a second back, and, as long as readings keep coming, not much more.
class CpuRate {
 public:
  /// Times in nanoseconds. A `usage` that has become less starts anew.
  void Add(std::int64_t at, std::uint64_t usage);
  /// As of the last reading; nothing before there are two of them a second apart.
  std::optional<std::uint64_t> nano_cores() const { return rate_; }

 private:
  struct Reading {
    std::int64_t at = 0;
    std::uint64_t usage = 0;
  };
  std::optional<Reading> base_;  // the rate is since then
  std::optional<Reading> next_;  // becomes the base in a second
  std::optional<std::uint64_t> rate_;
};

}  // namespace crisp::rund
