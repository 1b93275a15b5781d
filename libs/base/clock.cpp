#include "libs/base/clock.h"

namespace crisp {
namespace {

class SystemClock final : public Clock {
 public:
  SteadyTime Now() const override { return std::chrono::steady_clock::now(); }
  WallTime Wall() const override {
    return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
  }
  bool WaitUntil(std::unique_lock<std::mutex>& lock, std::condition_variable_any& changed,
                 SteadyTime deadline, const std::function<bool()>& done) override {
    if (deadline == SteadyTime::max()) {
      changed.wait(lock, done);
      return true;
    }
    return changed.wait_until(lock, deadline, done);
  }
};

}  // namespace

Clock& Clock::System() {
  static SystemClock clock;
  return clock;
}

}  // namespace crisp
