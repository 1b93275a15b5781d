#include "libs/testing/manual_clock.h"

#include <algorithm>

namespace crisp::testing {

using namespace std::chrono_literals;

// Far from zero, so that differences into the past stay positive.
ManualClock::ManualClock()
    : now_(1000h), wall_(std::chrono::sys_days(std::chrono::year(2026) / 1 / 1)) {}

SteadyTime ManualClock::Now() const {
  const std::scoped_lock lock(mutex_);
  return now_;
}

WallTime ManualClock::Wall() const {
  const std::scoped_lock lock(mutex_);
  return wall_;
}

bool ManualClock::WaitUntil(std::unique_lock<std::mutex>& lock,
                            std::condition_variable_any& changed, SteadyTime deadline,
                            const std::function<bool()>& done) {
  {
    const std::scoped_lock own(mutex_);
    waiters_.insert(&changed);
  }
  waiters_changed_.notify_all();
  // Real time bounds each round: a notification between our look at the clock and the wait is only
  // late then, not lost.
  bool answer = done();
  while (!answer && Now() < deadline) {
    changed.wait_for(lock, 10ms);
    answer = done();
  }
  const std::scoped_lock own(mutex_);
  waiters_.erase(waiters_.find(&changed));
  return answer;
}

void ManualClock::Advance(std::chrono::nanoseconds by) {
  const std::scoped_lock lock(mutex_);
  now_ += std::chrono::duration_cast<SteadyTime::duration>(by);
  wall_ += by;
  for (std::condition_variable_any* waiter : waiters_) waiter->notify_all();
}

bool ManualClock::WaitForWaiters(int count) {
  std::unique_lock lock(mutex_);
  return waiters_changed_.wait_for(
      lock, 10s, [this, count] { return waiters_.size() >= static_cast<std::size_t>(count); });
}

}  // namespace crisp::testing
