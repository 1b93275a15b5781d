#include "libs/work/pool.h"

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "libs/base/check.h"
#include "libs/base/trace.h"
#include "libs/log/log.h"

namespace crisp::work {
namespace {

struct Task {
  CallContext cc;
  SteadyTime submitted;
  trace::Context trace;  // of who has submitted it
  std::function<void()> run;
  std::function<void(const Status&)> dropped;
};

struct LaneState {
  LaneOptions options;
  std::deque<Task> queue;
  std::size_t threads = 0;  // at work for the lane, or on their way
  std::size_t running = 0;
  std::size_t exceptions = 0;
};

/// An idle thread; woken for a lane, or without one to end.
struct Sleeper {
  std::condition_variable changed;
  bool awake = false;
  LaneState* lane = nullptr;
};

/// False when an exception came out of it.
bool RunTask(Task& task, const Status& over) {
  const trace::Scope scope(task.trace);
  try {
    if (over.ok()) {
      task.run();
    } else if (task.dropped) {
      task.dropped(over);
    }
    return true;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    log::Error("an exception has left a task", {{"error", e.what()}});
    return false;
  }
}

}  // namespace

struct Pool::State {
  PoolOptions options;
  mutable std::mutex mutex;
  std::condition_variable ended;
  std::array<LaneState, kLanes> lanes;
  Operations operations;
  std::vector<Sleeper*> idle;  // the latest last: it is woken first, so that the others may end
  std::size_t threads = 0;
  bool stopped = false;

  LaneState& At(Lane lane) { return lanes.at(static_cast<std::size_t>(lane)); }
  Lane NameOf(const LaneState& lane) const { return static_cast<Lane>(&lane - lanes.data()); }

  /// The life of one thread, which begins with a task of `lane`. Only the lock's owner touches a
  /// lane.
  void Work(LaneState* lane) noexcept {
    std::unique_lock lock(mutex);
    while (lane != nullptr) {
      RunQueue(*lane, lock);
      --lane->threads;
      lane = stopped ? nullptr : AwaitLane(lock);
    }
    --threads;
    ended.notify_all();
  }

  /// Called with the lock held, which it gives up while a task runs.
  void RunQueue(LaneState& lane, std::unique_lock<std::mutex>& lock) const {
    while (!lane.queue.empty()) {
      Task task = std::move(lane.queue.front());
      lane.queue.pop_front();
      Status over = stopped ? Unavailable("the daemon is stopping") : task.cc.Check();
      ++lane.running;
      lock.unlock();
      if (options.on_wait)
        options.on_wait(NameOf(lane), std::chrono::steady_clock::now() - task.submitted);
      const bool well = RunTask(task, over);
      task = Task{};  // what the closures hold goes before the lock is taken again
      lock.lock();
      --lane.running;
      if (!well) ++lane.exceptions;
    }
  }

  /// The lane that the thread is woken for; null when it is to end.
  LaneState* AwaitLane(std::unique_lock<std::mutex>& lock) {
    Sleeper self;
    idle.push_back(&self);
    const bool woken = self.changed.wait_for(lock, options.idle, [&self] { return self.awake; });
    if (!woken) std::erase(idle, &self);
    return self.lane;
  }

  /// Called with the lock held, while a thread is idle.
  void WakeOne(LaneState* lane) {
    Sleeper* sleeper = idle.back();
    idle.pop_back();
    sleeper->lane = lane;
    sleeper->awake = true;
    sleeper->changed.notify_one();
  }
};

namespace {

struct Start {
  std::function<void()> work;
};

void* ThreadMain(void* argument) {
  std::unique_ptr<Start> start(static_cast<Start*>(argument));
  pthread_setname_np(pthread_self(), "work");  // else it has the name of whoever submitted first
  start->work();
  return nullptr;
}

bool StartThread(std::size_t stack_bytes, std::function<void()> work) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, stack_bytes);
  auto start = std::make_unique<Start>(Start{std::move(work)});
  pthread_t thread{};
  const bool started = pthread_create(&thread, &attributes, &ThreadMain, start.get()) == 0;
  pthread_attr_destroy(&attributes);
  if (started) static_cast<void>(start.release());
  return started;
}

}  // namespace

std::string_view LaneName(Lane lane) {
  switch (lane) {
    case Lane::kFast: return "fast";
    case Lane::kMutate: return "mutate";
    case Lane::kWait: return "wait";
    case Lane::kBulk: return "bulk";
    case Lane::kFlight: return "flight";
    case Lane::kSlowFlight: return "slow_flight";
    case Lane::kSlowWait: return "slow_wait";
    case Lane::kEndFlight: return "end_flight";
    case Lane::kExec: return "exec";
    case Lane::kStop: return "stop";
    case Lane::kStream: return "stream";
    case Lane::kCreate: return "create";
    case Lane::kCreateFlight: return "create_flight";
    case Lane::kClean: return "clean";
  }
  return "unknown";
}

Pool::Pool(const PoolOptions& options) : state_(std::make_shared<State>()) {
  state_->options = options;
  state_->At(Lane::kFast).options = options.fast;
  state_->At(Lane::kMutate).options = options.mutate;
  state_->At(Lane::kWait).options = options.wait;
  state_->At(Lane::kBulk).options = options.bulk;
  state_->At(Lane::kFlight).options = options.flight;
  state_->At(Lane::kSlowFlight).options = options.slow_flight;
  state_->At(Lane::kSlowWait).options = options.slow_wait;
  state_->At(Lane::kEndFlight).options = options.end_flight;
  state_->At(Lane::kExec).options = options.exec;
  state_->At(Lane::kStop).options = options.stop;
  state_->At(Lane::kStream).options = options.stream;
  state_->At(Lane::kCreate).options = options.create;
  state_->At(Lane::kCreateFlight).options = options.create_flight;
  state_->At(Lane::kClean).options = options.clean;
}

Pool::~Pool() {
  Stop();
  std::unique_lock lock(state_->mutex);
  state_->ended.wait(lock, [this] { return state_->threads == 0; });
}

Status Pool::Submit(Lane which, const CallContext& cc, std::function<void()> task,
                    std::function<void(const Status&)> dropped) {
  CRISP_CHECK(task != nullptr);
  std::lock_guard lock(state_->mutex);
  LaneState& lane = state_->At(which);
  if (state_->stopped) return Unavailable("the daemon is stopping");

  const bool may_grow = lane.threads < lane.options.cap;
  const bool wakes = may_grow && !state_->idle.empty();
  const bool starts =
      may_grow && !wakes &&
      StartThread(state_->options.stack_bytes, [state = state_, &lane] { state->Work(&lane); });
  if (starts) ++state_->threads;
  if (!wakes && !starts) {
    if (lane.threads == 0) return ResourceExhausted("no thread for lane {}", LaneName(which));
    // The first tasks in the queue are those that woken and starting threads are about to take.
    if (lane.queue.size() >= lane.options.queue + (lane.threads - lane.running)) {
      return ResourceExhausted("too much is under way (lane {}, {} waiting)", LaneName(which),
                               lane.queue.size());
    }
  }
  lane.queue.push_back({cc, std::chrono::steady_clock::now(), trace::Current(), std::move(task),
                        std::move(dropped)});
  if (wakes || starts) ++lane.threads;
  if (wakes) state_->WakeOne(&lane);
  return Status::Ok();
}

void Pool::Stop() {
  std::lock_guard lock(state_->mutex);
  state_->stopped = true;
  while (!state_->idle.empty()) state_->WakeOne(nullptr);
}

bool Pool::WaitEnded(std::chrono::nanoseconds timeout) {
  std::unique_lock lock(state_->mutex);
  return state_->ended.wait_for(lock, timeout, [this] { return state_->threads == 0; });
}

LaneStats Pool::Stats(Lane which) const {
  std::lock_guard lock(state_->mutex);
  const LaneState& lane = state_->At(which);
  return {lane.running, lane.queue.size(), lane.threads, lane.exceptions};
}

Operations& Pool::operations() { return state_->operations; }

}  // namespace crisp::work
