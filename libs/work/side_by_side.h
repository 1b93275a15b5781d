#pragma once

#include <functional>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/status.h"
#include "libs/work/pool.h"

namespace crisp::work {

/// Runs all of `tasks`, at the same time as far as the lane has threads for them, and returns when
/// each has ended: the first error in their order. None is left out because another one failed. The
/// calling thread takes part, so that it never waits for a lane that is full. A task bounds itself;
/// what had not begun when `cc` was over is told as kDeadlineExceeded or kCancelled.
Status SideBySide(Pool& pool, Lane lane, const CallContext& cc,
                  std::vector<std::function<Status()>> tasks);

}  // namespace crisp::work
