#pragma once

#include <algorithm>
#include <cstdint>

namespace crisp::rund::logger {

/// Nanoseconds of CLOCK_MONOTONIC.
using Nanoseconds = std::int64_t;

/// How many bytes may go now: `rate` come a second, and at most `burst` are saved up.
class Bucket {
 public:
  /// Full at first. `rate` is not 0.
  Bucket(std::uint64_t rate, std::uint64_t burst, Nanoseconds now)
      : rate_(static_cast<double>(rate)),
        burst_(static_cast<double>(burst)),
        level_(burst_),
        at_(now) {}

  /// Takes so many if they are there.
  bool Take(std::uint64_t bytes, Nanoseconds now) {
    Fill(now);
    // What is larger than the bucket goes when that is full; it would never go otherwise.
    const double needed = std::min(static_cast<double>(bytes), burst_);
    if (level_ < needed) return false;
    level_ -= needed;
    return true;
  }

  /// Until so many are there (or it is full); 0 = they are.
  Nanoseconds Until(std::uint64_t bytes, Nanoseconds now) {
    Fill(now);
    const double missing = std::min(static_cast<double>(bytes), burst_) - level_;
    return missing <= 0 ? 0 : static_cast<Nanoseconds>(missing / rate_ * kSecond) + 1;
  }

  /// What comes in a second, as far as the bucket holds it.
  std::uint64_t OneSecond() const { return static_cast<std::uint64_t>(std::min(rate_, burst_)); }

 private:
  static constexpr double kSecond = 1e9;

  void Fill(Nanoseconds now) {
    if (now <= at_) return;
    level_ = std::min(burst_, level_ + rate_ * static_cast<double>(now - at_) / kSecond);
    at_ = now;
  }

  double rate_, burst_, level_;
  Nanoseconds at_;
};

}  // namespace crisp::rund::logger
