#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "libs/base/trace.h"
#include "libs/work/flights.h"
#include "libs/work/group_run.h"
#include "libs/work/lock_table.h"
#include "libs/work/pool.h"
#include "libs/work/side_by_side.h"

using namespace std::chrono_literals;

namespace crisp::work {
namespace {

CallContext Soon() { return CallContext::Background(10s); }

/// A lane of one thread that is kept busy until Release().
class BusyLane {
 public:
  explicit BusyLane(std::size_t queue)
      : pool_(PoolOptions{.mutate = {1, queue}, .idle = std::chrono::milliseconds(20)}) {
    std::promise<void> running;
    auto started = running.get_future();
    REQUIRE(pool_
                .Submit(Lane::kMutate, Soon(),
                        [this, &running] {
                          running.set_value();
                          gate_.get_future().wait();
                        })
                .ok());
    started.wait();
  }
  ~BusyLane() { Release(); }
  void Release() {
    if (!std::exchange(released_, true)) gate_.set_value();
  }
  Pool& pool() { return pool_; }

 private:
  std::promise<void> gate_;
  bool released_ = false;
  Pool pool_;
};

}  // namespace

TEST_CASE("a task's wait for a thread is told, and it works for the trace of who submitted it") {
  constexpr const char* kParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  std::atomic<int> waits = 0;
  Pool pool(PoolOptions{.on_wait = [&waits](Lane lane, std::chrono::nanoseconds waited) {
    if (lane == Lane::kBulk && waited >= 0ns) ++waits;
  }});
  std::promise<std::string> seen;
  {
    const trace::Scope scope(*trace::ParseParent(kParent));
    REQUIRE(pool.Submit(Lane::kBulk, CallContext::Background(10s),
                        [&seen] { seen.set_value(trace::ToParent(trace::Current())); })
                .ok());
  }
  CHECK_FALSE(trace::Current().valid());
  CHECK(seen.get_future().get() == kParent);
  pool.Stop();
  CHECK(pool.WaitEnded(10s));
  CHECK(waits == 1);
}

TEST_CASE("a task runs on a thread that ends when idle") {
  Pool pool(PoolOptions{.idle = 5ms});
  std::promise<pid_t> ran;
  REQUIRE(pool.Submit(Lane::kMutate, Soon(), [&ran] { ran.set_value(gettid()); }).ok());
  const pid_t thread = ran.get_future().get();
  CHECK(thread != gettid());
  while (std::filesystem::exists(fmt::format("/proc/self/task/{}", thread))) {
    std::this_thread::yield();
  }
  CHECK(pool.Stats(Lane::kMutate).threads == 0);
}

TEST_CASE("an idle thread takes the next task of whichever lane") {
  Pool pool(PoolOptions{.idle = 10min});
  std::set<std::thread::id> threads;
  for (const Lane lane : {Lane::kMutate, Lane::kWait, Lane::kBulk, Lane::kMutate}) {
    std::promise<std::thread::id> ran;
    REQUIRE(pool.Submit(lane, Soon(), [&ran] { ran.set_value(std::this_thread::get_id()); }).ok());
    threads.insert(ran.get_future().get());
    while (pool.Stats(lane).threads > 0) std::this_thread::yield();
  }
  CHECK(threads.size() == 1);
}

TEST_CASE("a full queue is refused and a slow lane leaves the others alone") {
  BusyLane busy(2);
  std::promise<void> other;
  CHECK(busy.pool().Submit(Lane::kMutate, Soon(), [] {}).ok());
  CHECK(busy.pool().Submit(Lane::kMutate, Soon(), [] {}).ok());
  CHECK(busy.pool().Submit(Lane::kMutate, Soon(), [] {}).code() == Code::kResourceExhausted);
  CHECK(busy.pool().Submit(Lane::kWait, Soon(), [&other] { other.set_value(); }).ok());
  other.get_future().wait();
  CHECK(busy.pool().Stats(Lane::kMutate).queued == 2);
}

TEST_CASE("a task whose deadline passed in the queue is dropped with the reason") {
  BusyLane busy(2);
  std::promise<Code> dropped;
  bool ran = false;
  const CallContext late(std::chrono::steady_clock::now() - 1s, {}, "late");
  REQUIRE(busy.pool()
              .Submit(
                  Lane::kMutate, late, [&ran] { ran = true; },
                  [&dropped](const Status& why) { dropped.set_value(why.code()); })
              .ok());
  busy.Release();
  CHECK(dropped.get_future().get() == Code::kDeadlineExceeded);
  CHECK_FALSE(ran);
}

TEST_CASE("a stopped pool drops what is queued and takes no more") {
  BusyLane busy(2);
  std::promise<Code> dropped;
  REQUIRE(busy.pool()
              .Submit(
                  Lane::kMutate, Soon(), [] {},
                  [&dropped](const Status& why) { dropped.set_value(why.code()); })
              .ok());
  busy.pool().Stop();
  CHECK(busy.pool().Submit(Lane::kMutate, Soon(), [] {}).code() == Code::kUnavailable);
  CHECK_FALSE(busy.pool().WaitEnded(1ms));
  busy.Release();
  CHECK(dropped.get_future().get() == Code::kUnavailable);
  CHECK(busy.pool().WaitEnded(10s));
}

TEST_CASE("a lane runs no more tasks at once than its cap") {
  std::atomic<int> now{0};
  std::atomic<int> most{0};
  std::atomic<int> done{0};
  {
    Pool pool(PoolOptions{.bulk = {3, 200}});
    for (int i = 0; i < 100; ++i) {
      REQUIRE(pool.Submit(Lane::kBulk, Soon(),
                          [&] {
                            const int count = ++now;
                            int seen = most.load();
                            while (count > seen && !most.compare_exchange_weak(seen, count)) {
                            }
                            --now;
                            ++done;
                          })
                  .ok());
    }
    while (done < 100) std::this_thread::yield();
  }
  CHECK(most <= 3);
}

TEST_CASE("a key is locked once and handed on in order") {
  LockTable table;
  auto first = table.Lock(Soon(), "a");
  REQUIRE(first.ok());
  CHECK(table.TryLock("a").code() == Code::kUnavailable);
  CHECK(table.TryLock("b").ok());

  std::promise<bool> second_has;
  std::thread second([&] {
    auto held = table.Lock(Soon(), "a");
    second_has.set_value(held.ok());
  });
  first->Release();
  CHECK(second_has.get_future().get());
  second.join();
  CHECK(table.size() == 0);
}

TEST_CASE("a wait for a lock ends with the deadline or the stop of its call") {
  LockTable table;
  auto held = table.Lock(Soon(), "a");
  REQUIRE(held.ok());
  const CallContext late(std::chrono::steady_clock::now() - 1s, {}, "late");
  CHECK(table.Lock(late, "a").code() == Code::kDeadlineExceeded);

  std::stop_source source;
  source.request_stop();
  CHECK(table.Lock(CallContext(SteadyTime::max(), source.get_token(), "gone"), "a").code() ==
        Code::kCancelled);
  held->Release();
  CHECK(table.size() == 0);
}

TEST_CASE("equal calls share one flight") {
  Pool pool;
  Flights<std::string, int> flights(pool, 10s);
  std::promise<void> gate;
  auto open = gate.get_future().share();
  std::atomic<int> runs{0};
  auto call = [&] {
    return flights.Do(Soon(), "key", [&runs, open]() -> Result<int> {
      ++runs;
      open.wait();
      return 7;
    });
  };
  auto one = std::async(std::launch::async, call);
  while (runs == 0) std::this_thread::yield();
  // This one joins, but its own deadline is over: it goes, the flight does not.
  CHECK(flights
            .Do(CallContext(std::chrono::steady_clock::now() - 1s, {}, "late"), "key",
                []() -> Result<int> { return 8; })
            .code() == Code::kDeadlineExceeded);
  gate.set_value();
  CHECK(one.get().value() == 7);
  CHECK(runs == 1);
}

TEST_CASE("a flight that everybody has left may be stopped, and the next call starts anew") {
  Pool pool;
  Flights<std::string, int> flights(pool, 10s);
  std::atomic<int> runs{0};
  const auto call = [&](const CallContext& cc) {
    return flights.Do(cc, "key", [&runs](const CallContext& own) -> Result<int> {
      ++runs;
      std::mutex mutex;
      std::condition_variable_any never;
      std::unique_lock lock(mutex);
      never.wait(lock, own.stop(), [] { return false; });
      return Cancelled("stopped");
    });
  };
  const auto start = [&](std::chrono::seconds deadline, std::stop_source& stop) {
    return std::async(std::launch::async, [&call, deadline, token = stop.get_token()] {
      return call({std::chrono::steady_clock::now() + deadline, token, "caller"});
    });
  };
  std::stop_source one;
  std::stop_source two;
  auto first = start(60s, one);
  while (runs == 0) std::this_thread::yield();
  auto second = start(60s, two);
  CHECK(flights.StopAbandoned(0s).empty());
  one.request_stop();
  CHECK(first.get().code() == Code::kCancelled);
  // Whether the other has joined by now or not, it is one flight, or a second one.
  two.request_stop();
  CHECK(second.get().code() == Code::kCancelled);
  CHECK(flights.StopAbandoned(1h).empty());
  CHECK(flights.StopAbandoned(0s) == std::vector<std::string>{"key"});
  CHECK(flights.StopAbandoned(0s).empty());
  const int before = runs;
  // Who left because its deadline came is waited for.
  std::stop_source none;
  CHECK(call({std::chrono::steady_clock::now() + 1ms, none.get_token(), "late"}).code() ==
        Code::kDeadlineExceeded);
  CHECK(flights.StopAbandoned(0s).empty());
  std::stop_source three;
  auto third = start(60s, three);
  while (runs == before) std::this_thread::yield();
  three.request_stop();
  CHECK(third.get().code() == Code::kCancelled);
  CHECK(flights.StopAbandoned(0s).size() == 1);
}

TEST_CASE("a flight's failure reaches its callers and the next call starts anew") {
  Pool pool;
  Flights<std::string, int> flights(pool, 10s);
  const auto failed = flights.Do(
      Soon(), "key", [](const CallContext&) -> Result<int> { return NotFound("nothing there"); });
  CHECK(failed.code() == Code::kNotFound);
  CHECK(flights.Do(Soon(), "key", []() -> Result<int> { return 1; }).value() == 1);
}

TEST_CASE(
    "an exception that leaves a flight is its callers' answer, and the next call starts anew") {
  Pool pool;
  Flights<std::string, int> flights(pool, 10s);
  const auto failed = flights.Do(
      Soon(), "key", []() -> Result<int> { throw std::runtime_error("a library's own"); });
  CHECK(failed.code() == Code::kInternal);
  CHECK(failed.status().message().find("a library's own") != std::string::npos);
  CHECK(flights.Do(Soon(), "key", []() -> Result<int> { return 1; }).value() == 1);
}

TEST_CASE("an exception that leaves a task is counted and its lane goes on") {
  Pool pool(PoolOptions{.bulk = {1, 8}});
  REQUIRE(pool.Submit(Lane::kBulk, Soon(), [] { throw std::runtime_error("bug"); }).ok());
  std::promise<void> next;
  REQUIRE(pool.Submit(Lane::kBulk, Soon(), [&next] { next.set_value(); }).ok());
  next.get_future().wait();
  CHECK(pool.Stats(Lane::kBulk).exceptions == 1);
}

TEST_CASE("a flight that the pool refuses fails its callers") {
  Pool pool;
  pool.Stop();
  Flights<std::string, int> flights(pool, 10s);
  CHECK(flights.Do(Soon(), "key", []() -> Result<int> { return 1; }).code() == Code::kUnavailable);
}

TEST_CASE("who comes during a group's run has the next, together with the others who came") {
  constexpr int kCallers = 20;
  std::atomic<int> runs = 0;
  std::promise<void> begun;
  std::promise<void> gate;
  GroupRun group("test", [&]() -> Status {
    if (++runs > 1) return FailedPrecondition("the second");
    begun.set_value();
    gate.get_future().wait();
    return Status::Ok();
  });
  std::atomic<bool> first_ok = false;
  std::jthread first([&] { first_ok = group.Run(Soon()).ok(); });
  begun.get_future().wait();
  std::atomic<int> come = 0;
  std::atomic<int> told = 0;
  std::vector<std::jthread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&] {
      ++come;
      if (group.Run(Soon()).message() == "the second") ++told;
    });
  }
  while (come < kCallers) std::this_thread::yield();
  // The run goes on while a caller's patience ends.
  CHECK(group.Run(CallContext::Background(50ms)).code() == Code::kDeadlineExceeded);
  gate.set_value();
  callers.clear();
  first.join();
  CHECK(first_ok);
  CHECK(told == kCallers);
  CHECK(runs < kCallers / 2);  // some may have been late
}

TEST_CASE("a caller of a group whom nobody runs beside has a run of its own") {
  int runs = 0;
  GroupRun group("test", [&runs] {
    ++runs;
    return Status::Ok();
  });
  CHECK(group.Run(Soon()).ok());
  CHECK(group.Run(CallContext()).ok());
  CHECK(runs == 2);
}

TEST_CASE("tasks side by side run at once, and each of them although one fails") {
  Pool pool;
  std::atomic<int> begun{0};
  const auto meet = [&begun](Status outcome) {
    return [&begun, outcome = std::move(outcome)] {
      ++begun;
      while (begun < 3) std::this_thread::yield();
      return outcome;
    };
  };
  const Status done =
      SideBySide(pool, Lane::kClean, Soon(),
                 {meet(Status::Ok()), meet(Unavailable("second")), meet(Internal("third"))});
  CHECK(done.message() == "second");
  CHECK(begun == 3);
  CHECK(SideBySide(pool, Lane::kClean, Soon(), {}).ok());
}

TEST_CASE("tasks side by side do not wait for a lane that is full or stopped") {
  BusyLane busy(8);
  int ran = 0;
  const std::function<Status()> task = [&ran] {
    ++ran;
    return Status::Ok();
  };
  CHECK(SideBySide(busy.pool(), Lane::kMutate, Soon(), {task, task, task}).ok());
  busy.pool().Stop();
  CHECK(SideBySide(busy.pool(), Lane::kMutate, Soon(), {task, task}).ok());
  CHECK(ran == 5);
  const CallContext over = CallContext::Background(0s);
  CHECK(SideBySide(busy.pool(), Lane::kMutate, over, {task}).code() == Code::kDeadlineExceeded);
  CHECK(ran == 5);
}

}  // namespace crisp::work
