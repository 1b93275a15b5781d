#pragma once

#include <chrono>

#include "libs/base/call_context.h"
#include "libs/base/status.h"

namespace crisp::work {

/// Waits unless the call ends before: for back-off, and for what tells nobody when it comes free.
/// kCancelled, kDeadlineExceeded: the call's.
Status Pause(const CallContext& cc, std::chrono::nanoseconds duration);

}  // namespace crisp::work
