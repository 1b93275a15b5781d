#include "services/netd/core/lock_wait.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "libs/work/operations.h"

namespace crisp::netd {

Result<os::FileLock> WaitForLock(const CallContext& cc, std::string_view whose,
                                 const std::function<Result<os::FileLock>()>& try_lock) {
  constexpr std::chrono::milliseconds kRound(10);
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock wait(mutex);
  std::optional<work::Stage> stage;
  while (true) {
    Result<os::FileLock> lock = try_lock();
    if (lock.code() != Code::kUnavailable || !cc.Check().ok()) return lock;
    if (!stage) stage.emplace(cc, fmt::format("wait for {}", whose));
    never.wait_for(wait, cc.stop(), kRound, [] { return false; });
  }
}

}  // namespace crisp::netd
