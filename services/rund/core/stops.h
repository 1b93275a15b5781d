#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/base/status.h"
#include "services/rund/core/state.h"

namespace crisp::rund {

/// Containers that are being stopped: what comes next for each and when, and who waits for it.
///
///     grace ──(KillTimeOf)──► killed ──(patience)──► stuck ──(now and then)──► killed again
///                                   └──(its process is gone, its monitor silent)──► monitor killed
///
/// Also where it is stuck a silent monitor is killed once the process is gone.
///
/// From anywhere the end of the container ends it. The record says until when the grace is; the
/// states after it are in memory only, because SIGKILL may come twice. One thread moves all of
/// them, so that any number of containers in their grace hold no thread and no lock; it reads
/// memory and /proc, signals, and hands what may block to the pool. (Not the loop: its timers know
/// no Clock, which tests move by hand.)
class Stops {
 public:
  /// When the grace of a container that is being stopped is over.
  static SteadyTime KillTimeOf(const ContainerRecord& container, const Clock& clock);

  using Done = std::function<void(const Status&)>;
  /// What it has others do; called without its lock, and must not block. False: it could not be
  /// asked for now; it is asked for again soon.
  struct Actions {
    /// SIGKILL to all of the container.
    std::function<bool(const ContainerId&)> kill;
    /// The container's process has ended, and its monitor does not say so.
    std::function<bool(const ContainerId&)> kill_monitor;
  };
  /// From SIGKILL to the exit file: processes in the middle of a system call, a slow disk under the
  /// log.
  static constexpr std::chrono::seconds kKillPatience{10};
  /// From a monitor's SIGKILL to the record that says so.
  static constexpr std::chrono::seconds kMonitorPatience{5};

  Stops(State& state, Clock& clock, Actions actions);
  /// Close(), then ends the thread.
  ~Stops();
  Stops(const Stops&) = delete;
  Stops& operator=(const Stops&) = delete;

  /// Sees to the end of a container whose record has a `stop_kill_at` (or takes note that this has
  /// become earlier). `done`, which may be null, is called once, on the thread of this class, and
  /// must not block. Ok: it runs no longer. kDeadlineExceeded: it outlives SIGKILL; it is tried
  /// again later, and a new call waits anew. kUnavailable: closed.
  void Await(const ContainerId& id, Done done);

  /// Await() of all, side by side, and blocks until each has been told: the first error.
  /// kDeadlineExceeded also when that of the call has come, kCancelled when its caller goes; the
  /// stops go on.
  Status AwaitAll(const CallContext& cc, const std::vector<ContainerId>& ids);

  /// Who waits is told kUnavailable; nothing new is begun. Idempotent.
  void Close();

  struct Counts {
    std::size_t stopping = 0;
    std::size_t stuck = 0;  // outlived SIGKILL
  };
  Counts counts() const;
  /// Of one that outlived SIGKILL.
  struct Stuck {
    ContainerId id;
    SteadyTime since;  // when that was seen
  };
  std::vector<Stuck> stuck() const;

 private:
  enum class Stage { kGrace, kKilled, kMonitorKilled, kStuck };
  struct Stop {
    Stage stage = Stage::kGrace;
    SteadyTime next;
    std::optional<SteadyTime> stuck_since;  // the first time
    std::vector<Done> waiters;
  };
  /// What came of one stage.
  struct Step {
    Stage stage;
    std::chrono::nanoseconds after;  // until the next look
    Status outcome;                  // an error is told to who waits
  };

  void Touch(const std::string& id);
  void Serve();
  void Advance(const std::string& id);
  void Tell(const std::string& id, const Status& outcome, bool ended);
  /// The stage that a container is in, if its time has come.
  std::optional<Stage> StageDue(const std::string& id, const ContainerRecord& container);
  /// Does what the stage asks for, without the lock: it reads /proc.
  Step Take(Stage stage, const ContainerRecord& container) const;

  State& state_;
  Clock& clock_;
  const Actions actions_;
  mutable std::mutex mutex_;  // of what follows; memory only
  std::condition_variable_any changed_;
  std::unordered_map<std::string, Stop> stops_;
  std::set<std::string> touched_;
  bool closed_ = false;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace crisp::rund
