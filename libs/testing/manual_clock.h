#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>

#include "libs/base/clock.h"

namespace crisp::testing {

/// A clock whose hands the test moves. Waiters wake when their deadline is reached by Advance() or
/// when they are notified. Any thread.
class ManualClock final : public Clock {
 public:
  ManualClock();

  SteadyTime Now() const override;
  WallTime Wall() const override;
  bool WaitUntil(std::unique_lock<std::mutex>& lock, std::condition_variable_any& changed,
                 SteadyTime deadline, const std::function<bool()>& done) override;

  /// Moves both clocks on and wakes whoever's deadline has come.
  void Advance(std::chrono::nanoseconds by);
  /// Blocks (in real time, at most 10 s) until at least `count` threads wait on this clock.
  bool WaitForWaiters(int count);

 private:
  mutable std::mutex mutex_;
  std::condition_variable_any waiters_changed_;
  std::multiset<std::condition_variable_any*> waiters_;
  SteadyTime now_;
  WallTime wall_;
};

}  // namespace crisp::testing
