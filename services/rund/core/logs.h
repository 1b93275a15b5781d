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
  Result<LogCounts> Ask(const CallContext& cc, const ContainerRecord& container,
                        std::string_view request);
  Result<os::UniqueFd> Start(const CallContext& cc, const PodRecord& pod,
                             const ContainerRecord& container);

  Parts& p_;
  /// What has been counted in the metrics; by container.
  Guarded<std::map<std::string, LogCounts>> known_;
};

}  // namespace crisp::rund
