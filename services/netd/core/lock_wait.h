#pragma once

#include <functional>
#include <string_view>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/os/file_lock.h"

namespace crisp::netd {

/// Asks for a file lock again and again until it is given or the call is over (flock(2) knows no
/// deadline). `whose`: who may have it, for those who ask what is waited for. kUnavailable: others
/// had it all the time.
Result<os::FileLock> WaitForLock(const CallContext& cc, std::string_view whose,
                                 const std::function<Result<os::FileLock>()>& try_lock);

}  // namespace crisp::netd
