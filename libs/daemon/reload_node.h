#pragma once

#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"

namespace crisp::daemon {

/// What a reload has done in one daemon.
struct Reloaded {
  std::string daemon;                      // "rund/1"
  std::vector<std::string> changed;        // keys that it has taken
  std::vector<std::string> needs_restart;  // keys that it takes when it starts again
};

/// All daemons whose sockets are below `run_root` take the settings as they are in the files now,
/// or none does. Who is away takes them when it starts. kInvalidArgument: the settings, by file,
/// line and key. kUnavailable: no daemon answers. Other codes are those of the daemon that the
/// message names; the others are as they were then.
Result<std::vector<Reloaded>> ReloadNode(const CallContext& cc, const std::string& run_root);

}  // namespace crisp::daemon
