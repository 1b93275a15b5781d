#include "libs/work/pause.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

namespace crisp::work {

Status Pause(const CallContext& cc, std::chrono::nanoseconds duration) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, cc.stop(), std::min(duration, cc.Remaining()), [] { return false; });
  return cc.Check();
}

}  // namespace crisp::work
