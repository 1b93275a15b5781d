#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/guarded.h"
#include "libs/base/ids.h"
#include "libs/base/status.h"
#include "services/rund/core/logs.h"
#include "services/rund/core/oom_kills.h"
#include "services/rund/core/parts.h"
#include "services/rund/core/stops.h"
#include "services/rund/runtime/conmon.h"
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
  void OnLoggerGone(const ContainerId& id);
  /// Looks whether it has ended without our hearing of it: after create and start, which hold exits
  /// back, and after a restart.
  void CheckExit(const ContainerId& id);

  /// The same for each whose monitor has ended: an end that could not be stored is stored once that
  /// goes, and likewise the outcome of a start; a clean-up that has failed is tried again, the less
  /// often the more often it failed. Looks after the logs of the others. From time to time; on the
  /// pool, waits for no runtime.
  void CheckAll(const CallContext& cc);

  /// A start whose outcome was not stored (a crash, a failed commit) holds back the container's
  /// exits: waits until the runtime is done with it, stores what came of it, and looks for an exit.
  /// The caller holds the container's lock. Nothing to resolve = Ok; an error leaves it as it is.
  Status ResolveStart(const CallContext& cc, const ContainerId& id);

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
  /// The same, then waits for the end of its first process, a few seconds at most.
  void KillInit(const ContainerRecord& container);
  /// Stop() of all at once, without a grace, and waits for them, side by side: the first error. No
  /// lock may be held: what is in the middle of a system call takes its time. As with a stop, the
  /// record says that we did it before we do.
  Status End(const CallContext& cc, const std::vector<ContainerId>& ids);
  /// The container's lock, and it does not run: ended before the lock is taken, and again if it has
  /// begun to run meanwhile.
  Result<work::LockTable::Held> LockEnded(const CallContext& cc, const ContainerId& id);

  /// Takes down what an ended container still has: the runtime's state, cgroups, mounts. The record
  /// says so afterwards. The caller holds the container's lock. Idempotent.
  Status Clean(const CallContext& cc, const ContainerId& id);
  /// Undoes CreateContainer in whatever state it stopped; the record becomes a mere reservation.
  /// The caller holds the container's lock. Idempotent.
  Status UndoCreate(const CallContext& cc, const ContainerId& id);
  /// Clean() on the pool, soon; the sweep sees to what fails.
  void CleanLater(const ContainerId& id);

  const OomKills& oom_kills() const { return oom_kills_; }

  /// EXITED with code 255, because nobody saw the end.
  void MarkLost(const ContainerId& id, const std::string& reason, const std::string& message);

  /// Into the record of a container that is restored: it has these processes now, and runs.
  static void Restored(const Monitored& monitored, ContainerRecord& record);

 private:
  /// False: it was EXITED before, or it could not be stored.
  bool SetExited(const ContainerId& id, const ExitRecord& exit, const std::string& reason,
                 const std::string& message);
  Status BeginStop(const ContainerId& id, std::chrono::seconds grace);
  std::string ReasonFor(const ContainerRecord& container, const ExitRecord& exit, bool oom);
  void KillLost(const ContainerId& id);
  /// Kill(), but what may block is left to the pool. False: that could not be asked for.
  bool BeginKill(const ContainerId& id);
  void SignalInit(const ContainerRecord& container);
  void KillRest(const ContainerRecord& container);
  /// The same of a container that is restored: what runs is taken over, what does not is undone.
  Status ResolveRestore(const CallContext& cc, const ContainerRecord& container,
                        const OciRuntime* runtime);
  /// Of one that has no process yet: it has ended.
  void EndUnrestored(const ContainerId& id);
  /// ResolveStart() on the pool, where there is something to resolve and nobody is at it.
  void ResolveStartLater(const ContainerRecord& container);
  /// CleanLater(), but not before the time of one that has failed.
  void CleanAgain(const ContainerId& id);
  bool Later(const ContainerId& id, std::function<void()> task);
  std::chrono::seconds CleanTimeout() const;
  Status TakeDown(const CallContext& cc, const ContainerRecord& container);

  Parts& p_;
  Logs logs_;
  /// Those that we sent SIGKILL while they lived: their 137 is no sign of an OOM kill.
  Guarded<std::set<std::string>> killed_;
  /// Clean-ups on the pool that are under way or have failed.
  struct Retry {
    bool under_way = false;
    int failures = 0;
    SteadyTime due = SteadyTime::min();  // not before
  };
  Guarded<std::map<std::string, Retry>> retries_;
  OomKills oom_kills_;
  Stops stops_;  // last: its thread uses the others
};

}  // namespace crisp::rund
