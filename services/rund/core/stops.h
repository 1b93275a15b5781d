#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/base/status.h"
#include "services/rund/core/state.h"

namespace crisp::rund {

/// Containers that are being stopped: what comes next for each and when, and who waits for it.
///
///     grace ──(stop_kill_at)──► killed ──(patience)──► stuck ──(now and then)──► killed again
///                                   └──(its process is gone, its monitor silent)──► monitor killed
///
/// From anywhere the end of the container ends it. The record says until when the grace is; the
/// states after it are in memory only, because SIGKILL may come twice. One thread moves all of
/// them, so that any number of containers in their grace hold no thread and no lock; it reads
/// memory and /proc, and hands what may block to the pool. (Not the loop: its timers know no Clock,
/// which tests move by hand.)
class Stops {
 public:
  using Done = std::function<void(const Status&)>;
  /// What it has others do, on the pool.
  struct Actions {
    /// SIGKILL to all of the container. True if that could be asked for.
    std::function<bool(const ContainerId&)> kill;
    /// The container's process has ended, and its monitor does not say so.
    std::function<bool(const ContainerId&)> kill_monitor;
  };

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

  /// Who waits is told kUnavailable; nothing new is begun. Idempotent.
  void Close();

  struct Counts {
    std::size_t stopping = 0;
    std::size_t stuck = 0;  // outlived SIGKILL
  };
  Counts counts() const;

 private:
  enum class Stage { kGrace, kKilled, kMonitorKilled, kStuck };
  struct Stop {
    Stage stage = Stage::kGrace;
    SteadyTime next;
    std::vector<Done> waiters;
  };
  /// What is to be done for one container, outside of the lock.
  struct Step {
    Status outcome;
    std::vector<Done> tell;
    enum class Act { kNone, kKill, kKillMonitor } act = Act::kNone;
    bool ended = false;
  };

  void Touch(const std::string& id);
  void Serve();
  void Advance(const std::string& id);
  Step Decide(const ContainerRecord* container, Stop& stop);

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
