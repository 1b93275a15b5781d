#pragma once

#include <chrono>
#include <string>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "services/rund/runtime/exec_process.h"

namespace crisp::rund {

/// Without crisp-exec (`helper` empty) the runtime stays beside the command, and runc answers only
/// when all that hold the command's output have ended.
struct ExecSyncArgs : ExecArgs {
  std::chrono::seconds timeout{0};                         // 0 = none of its own
  SteadyTime asked_at = std::chrono::steady_clock::now();  // the timeout counts from then on
  Bytes max_output = MiB(16);  // of each stream; what comes after is read and thrown away
};

struct ExecSyncResult {
  int exit_code = 0;  // 128 + n for signal n
  std::string out;
  std::string err;
};

/// CRI v1 ExecSync without a monitor: the runtime's own `exec`, its output through pipes, stdin
/// /dev/null. Ends with the command's first process; output that background children still hold
/// open is waited for only shortly. Whether the container runs is for the caller to check.
/// Errors: kDeadlineExceeded after `timeout` (also when it was over before the command could be
/// begun) or the call's own deadline, kCancelled: the process
/// and all that it started are killed (KillTree says who may get away); kUnknown with the runtime's
/// own words when the command cannot be started: only they tell whether the program is missing or
/// the container is ending. When we are killed crisp-exec kills the command and its descendants:
/// nobody else would hold it to its time.
Result<ExecSyncResult> ExecSync(const CallContext& cc, const ExecSyncArgs& args);

}  // namespace crisp::rund
