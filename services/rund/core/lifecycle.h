#pragma once

#include <chrono>
#include <string>

#include "libs/base/call_context.h"
#include "libs/base/ids.h"
#include "libs/base/status.h"
#include "services/rund/core/parts.h"
#include "services/rund/runtime/exit_files.h"

namespace crisp::rund {

/// How containers end: by themselves, by a stop, by the loss of their monitor; and what is then
/// taken down. Whatever the way, the record turns EXITED once, with the exit code stored, and only
/// then is anybody told.
class Lifecycle {
 public:
  explicit Lifecycle(Parts& parts) : p_(parts) {}

  /// The supervisor's handlers; on its thread. Idempotent, in any order.
  void OnExitFile(const ContainerId& id);
  void OnMonitorGone(const ContainerId& id);
  /// Looks whether it has ended without our hearing of it: after create and start, which hold exits
  /// back, and after a restart.
  void CheckExit(const ContainerId& id);

  /// CRI v1 StopContainer: the stop signal, once; SIGKILL to all of it after `grace` (0: at once).
  /// A later call may shorten the time, not lengthen it. The caller's leaving changes nothing.
  /// Idempotent; gone or not running is Ok. Lane::kWait; holds no lock while it waits.
  /// kDeadlineExceeded: it outlives SIGKILL (uninterruptible sleep); the record stays RUNNING.
  Status Stop(const CallContext& cc, const ContainerId& id, std::chrono::seconds grace);
  /// Goes on with a stop that a restart interrupted.
  void ResumeStop(const CallContext& cc, const ContainerId& id);
  /// SIGKILL now, without waiting.
  void Kill(const ContainerRecord& container);
  /// SIGKILL, then waits until it is EXITED. Gone or not running is Ok.
  Status KillAndWait(const CallContext& cc, const ContainerId& id);

  /// Takes down what an ended container still has: the runtime's state, cgroups, mounts. The record
  /// says so afterwards. The caller holds the container's lock. Idempotent.
  Status Clean(const CallContext& cc, const ContainerId& id);
  /// Undoes CreateContainer in whatever state it stopped; the record becomes a mere reservation.
  /// The caller holds the container's lock. Idempotent.
  Status UndoCreate(const CallContext& cc, const ContainerId& id);
  /// Clean() on the pool, soon.
  void CleanLater(const ContainerId& id);

  /// EXITED with code 255, because nobody saw the end.
  void MarkLost(const ContainerId& id, const std::string& reason, const std::string& message);

 private:
  void SetExited(const ContainerId& id, const ExitRecord& exit, const std::string& reason,
                 const std::string& message);
  Status WaitExited(const CallContext& cc, const ContainerId& id);
  Status WaitGrace(const CallContext& cc, const ContainerId& id);
  Status TakeDown(const CallContext& cc, const ContainerRecord& container);

  Parts& p_;
};

}  // namespace crisp::rund
