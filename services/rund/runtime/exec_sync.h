#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"

namespace crisp::rund {

struct ExecSyncArgs {
  std::string runtime;                       // program path
  std::vector<std::string> runtime_options;  // before its command: --root and more
  std::string container_id;
  std::string process_json;  // BuildExecProcess(...).dump()
  std::string scratch_dir;   // exists; a fresh directory for this call is made (and removed) in it
  std::chrono::seconds timeout{0};  // 0 = none of its own
  Bytes max_output = MiB(16);       // of each stream; what comes after is read and thrown away
  /// crisp-exec (services/rund/exec). Without it (empty) the runtime stays beside the command, and
  /// runc answers only when all that hold the command's output have ended.
  std::string helper;
};

struct ExecSyncResult {
  int exit_code = 0;  // 128 + n for signal n
  std::string out;
  std::string err;
};

/// CRI v1 ExecSync without a monitor: the runtime's own `exec`, its output through pipes, stdin
/// /dev/null. Ends with the command's first process; output that background children still hold
/// open is waited for only shortly. Whether the container runs is for the caller to check.
/// Errors: kDeadlineExceeded after `timeout` or the call's own deadline, kCancelled: the process
/// and all its descendants are killed; kInternal with the runtime's own words when the command
/// cannot be started.
Result<ExecSyncResult> ExecSync(const CallContext& cc, const ExecSyncArgs& args);

}  // namespace crisp::rund
