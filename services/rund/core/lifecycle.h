#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>

#include "libs/base/call_context.h"
#include "libs/base/guarded.h"
#include "libs/base/ids.h"
#include "libs/base/status.h"
#include "services/rund/core/logs.h"
#include "services/rund/core/parts.h"
#include "services/rund/core/stops.h"
#include "services/rund/runtime/exit_files.h"

namespace crisp::rund {

/// How containers end: by themselves, by a stop, by the loss of their monitor; and what is then
/// taken down. Whatever the way, the record turns EXITED once, with the exit code stored, and only
/// then is anybody told.
class Lifecycle {
 public:
  explicit Lifecycle(Parts& parts);

  /// The supervisor's handlers; on its thread. Idempotent, in any order.
  void OnExitFile(const ContainerId& id);
  void OnMonitorGone(const ContainerId& id);
  /// Looks whether it has ended without our hearing of it: after create and start, which hold exits
  /// back, and after a restart.
  void CheckExit(const ContainerId& id);

  /// The same for each whose monitor has ended: an end that could not be stored is stored once that
  /// goes. Looks after the logs of the others. From time to time; on the pool.
  void CheckAll(const CallContext& cc);

  /// CRI v1 StopContainer: the stop signal, once; SIGKILL to all of it after `grace` (0: at once).
  /// A later call may shorten the time, not lengthen it. Blocks only to store and signal; `done`
  /// (see Stops::Await) is called when it is over, however long that takes, and no thread or lock
  /// waits for it. Idempotent; gone or not running is Ok.
  /// kDeadlineExceeded: it outlives SIGKILL (uninterruptible sleep); the record stays RUNNING.
  void Stop(const ContainerId& id, std::chrono::seconds grace, Stops::Done done);
  /// Goes on with a stop that a restart interrupted.
  void ResumeStop(const ContainerId& id) { stops_.Await(id, nullptr); }
  Stops& stops() { return stops_; }
  Logs& logs() { return logs_; }
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

  /// A container of a pod with that cgroup begins: what the pod's OOM kills are now is not its.
  void Created(const ContainerId& id, const std::string& pod_cgroup);
  /// Of a pod that is gone.
  void Forget(const PodId& id) { oom_kills_.lock()->accounted.erase(id.str()); }

  /// EXITED with code 255, because nobody saw the end.
  void MarkLost(const ContainerId& id, const std::string& reason, const std::string& message);

 private:
  void SetExited(const ContainerId& id, const ExitRecord& exit, const std::string& reason,
                 const std::string& message);
  Status WaitExited(const CallContext& cc, const ContainerId& id);
  Status BeginStop(const ContainerId& id, std::chrono::seconds grace);
  std::string ReasonFor(const ContainerRecord& container, const ExitRecord& exit);
  bool IsOomKill(const ContainerRecord& container, const ExitRecord& exit);
  void KillLost(const ContainerId& id);
  /// Kill(), but what may block is left to the pool. False: that could not be asked for.
  bool BeginKill(const ContainerId& id);
  void SignalInit(const ContainerRecord& container);
  void KillRest(const ContainerRecord& container);
  bool Later(const ContainerId& id, std::function<void()> task);
  std::chrono::seconds CleanTimeout() const;
  Status TakeDown(const CallContext& cc, const ContainerRecord& container);

  Parts& p_;
  Logs logs_;
  /// Those that we sent SIGKILL while they lived: their 137 is no sign of an OOM kill.
  Guarded<std::set<std::string>> killed_;
  struct OomKills {
    std::map<std::string, std::uint64_t> before;     // of the pod, when a container began; by that
    std::map<std::string, std::uint64_t> accounted;  // that are some container's reason; by pod
  };
  Guarded<OomKills> oom_kills_;
  Stops stops_;  // last: its thread uses the others
};

}  // namespace crisp::rund
