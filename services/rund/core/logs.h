#pragma once

#include <map>
#include <string>
#include <string_view>

#include "libs/base/call_context.h"
#include "libs/base/guarded.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "services/rund/core/parts.h"
#include "services/rund/runtime/logger.h"

namespace crisp::rund {

/// The logs of containers. Where one is limited, crisp-log stands between it and conmon, and this
/// starts it, asks it and looks after it. Any thread.
class Logs {
 public:
  explicit Logs(Parts& parts) : p_(parts) {}

  /// What conmon gets to know of a container's log.
  struct Place {
    std::string path;       // "" = no log
    os::UniqueFd lifeline;  // of crisp-log: to be held until conmon has started
  };
  /// Makes the log's file, and starts crisp-log where the log is limited.
  Result<Place> Prepare(const CallContext& cc, const PodRecord& pod,
                        const ContainerRecord& container);
  /// CRI v1 ReopenContainerLog of a running container. The new file is there when this returns Ok.
  Status Reopen(const CallContext& cc, const ContainerRecord& container);
  /// All that the container wrote before its exit file is in the log afterwards, unless that takes
  /// too long. Of one without a limit it is there already.
  void Finish(const ContainerRecord& container);
  /// Of one that runs: starts crisp-log again should it have ended, and counts what was left out.
  void Check(const CallContext& cc, const ContainerRecord& container);
  void Forget(const ContainerId& id) { known_.lock()->erase(id.str()); }

 private:
  /// Of a log that crisp-log writes.
  struct Known {
    LogCounts counted;  // in the metrics
    /// Of the FIFO, and never read: so the FIFO takes 64 KiB of what the container writes also when
    /// crisp-log is lost, until another one is there.
    os::UniqueFd kept_open;
    pid_t watched = 0;
  };

  Result<LoggerAnswer> Ask(const CallContext& cc, const ContainerRecord& container,
                           std::string_view request);
  Result<os::UniqueFd> Start(const CallContext& cc, const PodRecord& pod,
                             const ContainerRecord& container, bool again);
  void CheckLocked(const CallContext& cc, const ContainerRecord& container);
  bool IsWanted(const ContainerRecord& container);
  void Watch(const ContainerRecord& container, pid_t logger);

  Parts& p_;
  Guarded<std::map<std::string, Known>> known_;  // by container
};

}  // namespace crisp::rund
