#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>

namespace crisp {

using SteadyTime = std::chrono::steady_clock::time_point;
using WallTime = std::chrono::sys_time<std::chrono::nanoseconds>;

/// The time, and waits for it, as a parameter: tests turn the hands themselves (libs/testing:
/// ManualClock).
class Clock {
 public:
  virtual ~Clock() = default;
  virtual SteadyTime Now() const = 0;
  virtual WallTime Wall() const = 0;
  /// Waits until `done()` (looked at under the lock, again after each notification) or until
  /// `deadline`. Returns the last answer of `done()`.
  virtual bool WaitUntil(std::unique_lock<std::mutex>& lock, std::condition_variable_any& changed,
                         SteadyTime deadline, const std::function<bool()>& done) = 0;

  /// The kernel's clocks.
  static Clock& System();
};

}  // namespace crisp
