#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/status.h"
#include "services/rund/core/checkpoints.h"
#include "services/rund/core/containers.h"
#include "services/rund/core/lifecycle.h"
#include "services/rund/core/parts.h"
#include "services/rund/core/pods.h"

namespace crisp::rund {

/// Takes up where the last run was ended, wherever that was. Records are served at once (Begin);
/// what has to be looked at or undone follows in the background (Continue), and whoever wants such
/// an object meanwhile waits for its lock.
class Recovery {
 public:
  Recovery(Parts& parts, Pods& pods, Containers& containers, Checkpoints& checkpoints,
           Lifecycle& lifecycle)
      : p_(parts),
        pods_(pods),
        containers_(containers),
        checkpoints_(checkpoints),
        lifecycle_(lifecycle) {}

  /// Before the first call is served; touches records and locks only. After a reboot nothing runs:
  /// says so in the records.
  Status Begin(const std::string& boot_id);
  /// After the supervisor has started; hands out work to the pool and returns. `cc` bounds it.
  void Continue(const CallContext& cc);

 private:
  Status AfterReboot();
  void TakeUpContainer(const CallContext& cc, const ContainerRef& container);
  void TakeUpPod(const CallContext& cc, const PodRef& pod);
  void RemoveUnknown(const CallContext& cc);
  Status RemoveUnknownContainer(const CallContext& cc, const ContainerId& id);
  Status RemoveUnknownPod(const CallContext& cc, const PodId& id);
  void Later(work::Lane lane, const CallContext& cc, std::function<void()> task);

  Parts& p_;
  Pods& pods_;
  Containers& containers_;
  Checkpoints& checkpoints_;
  Lifecycle& lifecycle_;
  /// Of containers whose create or start was interrupted: given back when that is resolved.
  std::map<std::string, std::shared_ptr<work::LockTable::Held>> held_;
};

}  // namespace crisp::rund
