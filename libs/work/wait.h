#pragma once

#include <condition_variable>
#include <mutex>

#include "libs/base/call_context.h"

namespace crisp::work {

/// Waits until `done()`, looked at under the lock and again after each notification, or until the
/// call is over: its deadline, or its caller's leaving. The last answer of `done()`.
template <typename Predicate>
bool WaitUnlessOver(const CallContext& cc, std::unique_lock<std::mutex>& lock,
                    std::condition_variable_any& changed, Predicate done) {
  // No point in time is as late as the one that stands for none.
  if (cc.deadline() == SteadyTime::max()) return changed.wait(lock, cc.stop(), done);
  return changed.wait_until(lock, cc.stop(), cc.deadline(), done);
}

}  // namespace crisp::work
