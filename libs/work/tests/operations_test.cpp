#include "libs/work/operations.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <future>
#include <optional>
#include <thread>

#include "libs/work/flights.h"
#include "libs/work/lock_table.h"
#include "libs/work/pool.h"

using namespace std::chrono_literals;

namespace crisp::work {
namespace {

CallContext CallOf(Operations& operations, std::string kind, std::string subject = "thing") {
  return CallContext::Background(10s, "req")
      .PartOf(operations.Begin(
          {.kind = std::move(kind), .subjects = {std::move(subject)}, .request_id = "req"}));
}

/// The only one that is under way.
OperationView TheOne(const Operations& operations) {
  std::vector<OperationView> all = operations.UnderWay();
  REQUIRE(all.size() == 1);
  return all.front();
}

bool Says(const std::string& text, std::string_view words) {
  return text.find(words) != std::string::npos;
}

/// Fails one with `outcome`.
void Fail(Operations& operations, const Status& outcome, const std::string& subject = "thing") {
  const CallContext cc = CallOf(operations, "Pull", subject);
  const Stage stage(cc, "step");
  static_cast<void>(cc.operation()->Answer(outcome));
}

}  // namespace

TEST_CASE("an operation is under way for as long as a call is part of it") {
  Operations operations;
  {
    const CallContext cc = CallOf(operations, "RunPod", "default/web");
    const CallContext undo = cc.Detached(1s).Within(10ms).WithStop({});
    const OperationView view = TheOne(operations);
    CHECK(view.kind == "RunPod");
    CHECK(view.subjects == std::vector<std::string>{"default/web"});
    CHECK(view.request_id == "req");
    AddSubject(undo, "0123");
    CHECK(TheOne(operations).subjects.back() == "0123");
  }
  CHECK(operations.UnderWay().empty());
  CHECK(operations.Failed().empty());
}

TEST_CASE("steps know what they are a part of, and what waits") {
  Operations operations;
  const CallContext cc = CallOf(operations, "RunPod");
  {
    const Stage network(cc, "network");
    const Stage plugin(cc, "plugin slow: ADD");
    const ProcessStage process(cc, "/opt/cni/bin/slow", 4321);
    std::thread([&cc, &operations] {
      const Stage beside(cc, "layer");
      const Stage peer = Stage::Elsewhere(cc, "Attach of netd/1", "netd/1");
      const std::vector<StageView> stages = TheOne(operations).stages;
      REQUIRE(stages.size() == 4);
      CHECK(stages[0].what == "network");
      CHECK(stages[0].parent == -1);
      CHECK(stages[0].process == 0);
      CHECK(stages[1].parent == 0);
      CHECK(stages[1].process == 4321);
      CHECK(stages[1].thread == ::getpid());  // the main thread's
      CHECK(stages[1].under_way);
      CHECK(stages[2].parent == -1);
      CHECK(stages[3].parent == 2);
      CHECK(stages[3].peer == "netd/1");
      CHECK(stages[3].thread == 0);
    }).join();
  }
  const std::vector<StageView> stages = TheOne(operations).stages;
  REQUIRE(stages.size() == 4);
  CHECK_FALSE(stages[1].under_way);
  CHECK(stages[1].process == 4321);  // known still, for the error
  const ProcessStage alone(cc, "/sbin/nft", 7);
  CHECK(TheOne(operations).stages.back().what == "run /sbin/nft");
}

TEST_CASE("of no operation steps do nothing") {
  const CallContext cc = CallContext::Background(1s);
  Stage stage(cc, "nothing");
  stage.HowFar([] { return "far"; });
  const ProcessStage process(cc, "/bin/true", 1);
  AddSubject(cc, "nobody");
  const Stage moved = std::move(stage);
}

TEST_CASE("how far a step is is told when somebody asks, and in the end by what it was") {
  Operations operations;
  const CallContext cc = CallOf(operations, "Pull");
  int asked = 0;
  {
    Stage stage(cc, "layer");
    stage.HowFar([&asked] { return fmt::format("{} bytes", ++asked); });
    CHECK(asked == 0);
    CHECK(TheOne(operations).stages[0].how_far == "1 bytes");
    CHECK(Says(StagesText(TheOne(operations)), "(2 bytes)"));
  }
  CHECK(asked == 2);  // it was short: nobody wants to know
}

TEST_CASE("the error of a deadline says where the time went") {
  Operations operations;
  operations.ExplainPeersBy([](const std::string& peer, const std::string& request) {
    CHECK(request == "req");
    return peer == "netd/1" ? "plugin slow: ADD 1.9 s, process 12" : "";
  });
  const CallContext cc = CallOf(operations, "RunPodSandbox");
  { const Stage nothing(cc, "too short for a word"); }
  const Stage peer = Stage::Elsewhere(cc, "Attach of netd/1", "netd/1");
  const Stage other = Stage::Elsewhere(cc, "PreparePod of rund/1", "rund/1");
  const Status told = cc.operation()->Answer(DeadlineExceeded("it is over"), true);
  CHECK(told.code() == Code::kDeadlineExceeded);
  INFO(told.message());
  CHECK(told.message().starts_with("it is over; RunPodSandbox took "));
  CHECK(Says(told.message(), "Attach of netd/1 "));
  CHECK(Says(told.message(), "; netd/1: plugin slow: ADD 1.9 s, process 12"));
  CHECK_FALSE(Says(told.message(), "rund/1:"));
  CHECK_FALSE(Says(told.message(), "too short"));
  // Any other failure is as it was, and so is one without a step.
  CHECK(cc.operation()->Answer(NotFound("gone")).message() == "gone");
  const CallContext bare = CallOf(operations, "Stop");
  CHECK(bare.operation()->Answer(DeadlineExceeded("it is over")).message() == "it is over");
}

TEST_CASE("failures are kept, the latest first, equal ones once, not those that say nothing") {
  Operations operations;
  Fail(operations, Unavailable("away"), "one");
  Fail(operations, Internal("bad"), "two");
  Fail(operations, Unavailable("away again"), "one");
  Fail(operations, Cancelled("went"));
  Fail(operations, Status::Ok());
  static_cast<void>(CallOf(operations, "Status").operation()->Answer(NotFound("no step, no word")));
  const std::vector<OperationView> failed = operations.Failed();
  REQUIRE(failed.size() == 2);
  CHECK(failed[0].subjects[0] == "one");
  CHECK(failed[0].times == 2);
  CHECK(failed[0].outcome.message() == "away again");
  CHECK(failed[1].outcome.code() == Code::kInternal);
  for (int i = 0; i < 100; ++i) Fail(operations, Internal("bad"), fmt::format("pod {}", i));
  CHECK(operations.Failed().size() == Operations::kKept);
  CHECK(operations.Failed().front().subjects[0] == "pod 99");
}

TEST_CASE("an operation of very many steps forgets the short ones") {
  Operations operations;
  const CallContext cc = CallOf(operations, "Pull");
  const Stage long_one(cc, "layers");
  for (int i = 0; i < 1000; ++i) {
    const Stage step(cc, "step");
    const Stage part(cc, "part");
  }
  const std::vector<StageView> stages = TheOne(operations).stages;
  CHECK(stages.size() < 300);
  CHECK(stages[0].what == "layers");
  CHECK(stages.back().parent >= 0);
}

TEST_CASE("a call that waits for a thread, a lock or its like says so") {
  Pool pool(PoolOptions{.mutate = {1, 8}});
  LockTable locks;
  const auto held = locks.Lock(CallContext::Background(1s), "pod/abc");
  std::promise<void> gate;
  const CallContext first = CallOf(pool.operations(), "RunPod", "first");
  REQUIRE(pool.Submit(Lane::kMutate, first, [&gate] { gate.get_future().wait(); }).ok());
  const CallContext second = CallOf(pool.operations(), "RunPod", "second");
  second.operation()->Queued("mutate");
  std::this_thread::sleep_for(2ms);
  CHECK(second.operation()->View().stages.at(0).what == "wait for a thread of lane mutate");
  second.operation()->Runs();
  CHECK(second.operation()->View().thread == ::getpid());
  CHECK_FALSE(second.operation()->View().stages.at(0).under_way);
  bool locked = false;
  std::jthread waits([&] { locked = locks.Lock(second.Within(200ms), "pod/abc").ok(); });
  while (second.operation()->View().stages.size() < 2) std::this_thread::yield();
  CHECK(second.operation()->View().stages[1].what == "wait for another call that is at pod/abc");
  waits.join();
  CHECK_FALSE(locked);
  gate.set_value();
}

TEST_CASE("what goes on without its caller stays under way, and who joins it says what it does") {
  Pool pool;
  Flights<std::string, int> flights(pool, 10s);
  std::promise<void> gate;
  const auto run = [&](const CallContext& own) -> Result<int> {
    const Stage stage(own, "plugin slow: ADD");
    gate.get_future().wait();
    return 1;
  };
  {
    const CallContext first = CallOf(pool.operations(), "RunPod", "first").Within(50ms);
    CHECK(flights.Do(first, "pod", run).code() == Code::kDeadlineExceeded);
    static_cast<void>(first.operation()->Answer(DeadlineExceeded("over")));
  }
  CHECK(TheOne(pool.operations()).outcome.code() == Code::kDeadlineExceeded);
  {
    const CallContext retry = CallOf(pool.operations(), "RunPod", "retry").Within(1100ms);
    const auto joined = flights.Do(retry, "pod", run);
    const Status told = retry.operation()->Answer(joined.status());
    INFO(told.message());
    CHECK(Says(told.message(), "wait for the same call, which is under way already"));
    CHECK(Says(told.message(), "plugin slow: ADD"));
  }
  gate.set_value();
  while (!pool.operations().UnderWay().empty()) std::this_thread::yield();
  CHECK(pool.operations().Failed().size() == 2);
}

TEST_CASE("times are told as people do") {
  CHECK(TimeText(3ms) == "3 ms");
  CHECK(TimeText(1234ms) == "1.2 s");
  CHECK(TimeText(119s) == "119.0 s");
  CHECK(TimeText(245s) == "4 min 5 s");
}

}  // namespace crisp::work
