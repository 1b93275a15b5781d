#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>

#include "libs/base/call_context.h"
#include "libs/base/status.h"
#include "libs/work/operations.h"

namespace crisp::work {

/// Kinds of work by how long they hold a thread. kFast: reads of memory (rpc::Unary runs it inline,
/// without the pool). kMutate: create, start, remove, mount, CNI. kWait: ends of processes. kExec:
/// commands that clients run, for as long as they please. kStop: what begins and forces an end, and
/// waits for nobody. kStream: sessions of exec, attach and port-forward that begin, logs that are
/// reopened: milliseconds, and somebody waits for them. kBulk: layers, garbage. kFlight: the work
/// of Flights, which callers in other lanes wait for; do not use it for anything else. Flights that
/// others' programs may hold up for long (a network plugin that hangs) have kSlowFlight, and those
/// who wait for them kSlowWait (as do checkpoints, which last as long as memory is written);
/// flights that take things down have kEndFlight: what hangs must not keep the rest from ending.
/// kCreate: creates and starts of containers, which last as long as an OCI runtime pleases, or the
/// calls that wait for them; kCreateFlight: their flights. kClean: what is left of ended containers
/// is taken down behind everybody's back, by the same runtimes.
enum class Lane {
  kFast,
  kMutate,
  kWait,
  kBulk,
  kFlight,
  kSlowFlight,
  kSlowWait,
  kEndFlight,
  kExec,
  kStop,
  kStream,
  kCreate,
  kCreateFlight,
  kClean,
};
inline constexpr std::size_t kLanes = 14;
/// "fast", "mutate", ...: for metrics.
std::string_view LaneName(Lane lane);

struct LaneOptions {
  /// Threads at the same time.
  std::size_t cap = 16;
  /// Tasks waiting beyond them.
  std::size_t queue = 1024;
};

struct PoolOptions {
  LaneOptions fast{4, 4096};
  LaneOptions mutate{16, 1024};
  LaneOptions wait{128, 1024};
  LaneOptions bulk{8, 1024};
  LaneOptions flight{32, 1024};
  LaneOptions slow_flight{128, 1024};
  LaneOptions slow_wait{128, 1024};
  LaneOptions end_flight{64, 1024};
  LaneOptions exec{512, 1024};
  LaneOptions stop{16, 4096};
  LaneOptions stream{16, 1024};
  LaneOptions create{128, 1024};
  LaneOptions create_flight{128, 1024};
  LaneOptions clean{32, 4096};
  /// A thread without work ends after this (its memory goes back).
  std::chrono::milliseconds idle{10'000};
  /// Of each thread.
  std::size_t stack_bytes = std::size_t{512} << 10U;
  /// Told how long each task has waited for its turn, on the thread that then runs it.
  std::function<void(Lane, std::chrono::nanoseconds)> on_wait = nullptr;
};

struct LaneStats {
  std::size_t running = 0;
  std::size_t queued = 0;
  std::size_t threads = 0;  // at work for the lane; an idle one is nobody's
  /// That have left a task, ever: bugs.
  std::size_t exceptions = 0;
};

/// Threads made on demand, for whichever lane needs one, that end when idle. Any thread may submit.
class Pool {
 public:
  explicit Pool(const PoolOptions& options = {});
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  /// Stop(), then waits for the threads.
  ~Pool();

  /// Runs `task` on a thread of the lane. When `cc` is over (deadline, stop) before its turn comes,
  /// or the pool stops, `dropped` is called instead, with the reason, on a pool thread: exactly one
  /// of the two runs for a submission that answered Ok. An exception that leaves either is counted
  /// (LaneStats::exceptions), but out of memory dies loudly. kResourceExhausted: the lane's queue
  /// is full. kUnavailable: stopped.
  Status Submit(Lane lane, const CallContext& cc, std::function<void()> task,
                std::function<void(const Status&)> dropped = nullptr);

  /// Takes no more, drops what is queued, lets what runs end. Idempotent; does not wait.
  void Stop();

  /// After Stop(): until the last task has ended, at most `timeout`. False when some still run.
  bool WaitEnded(std::chrono::nanoseconds timeout);

  LaneStats Stats(Lane lane) const;

  /// What is being done, here and by those who wait for what is done here.
  Operations& operations();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace crisp::work
