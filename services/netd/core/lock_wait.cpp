#include "services/netd/core/lock_wait.h"

#include <chrono>
#include <optional>

#include "libs/work/operations.h"
#include "libs/work/pause.h"

namespace crisp::netd {

Result<os::FileLock> WaitForLock(const CallContext& cc, std::string_view whose,
                                 const std::function<Result<os::FileLock>()>& try_lock) {
  constexpr std::chrono::milliseconds kRound(10);
  std::optional<work::Stage> stage;
  while (true) {
    Result<os::FileLock> lock = try_lock();
    if (lock.code() != Code::kUnavailable || !cc.Check().ok()) return lock;
    if (!stage) stage.emplace(cc, fmt::format("wait for {}", whose));
    static_cast<void>(work::Pause(cc, kRound).ok());
  }
}

}  // namespace crisp::netd
