#include "services/rund/core/stops.h"

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "libs/testing/manual_clock.h"
#include "libs/testing/test_root.h"
#include "services/rund/core/parts.h"

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT
namespace cri = runtime::v1;
using std::chrono::seconds;

namespace {

std::string Id(int number) { return fmt::format("{:064x}", number); }

bool Eventually(const std::function<bool()>& done) {
  for (int i = 0; i < 5000 && !done(); ++i) poll(nullptr, 0, 1);
  return done();
}

/// Records of containers without containers, and a clock that is moved by hand.
struct StopsFixture {
  StopsFixture() {
    auto records = Records::Open(root / "records.db");
    REQUIRE(records.ok());
    auto opened = State::Open(*std::move(records), clock);
    REQUIRE(opened.ok());
    state = *std::move(opened);
    PodRecord pod;
    pod.set_id(std::string(64, 'f'));
    pod.set_phase(v1::LIVE);
    pod.set_created_at(1);
    REQUIRE(state->ReservePod(pod).ok());
    stops = std::make_unique<Stops>(
        *state, clock,
        Stops::Actions{.kill = [this](const ContainerId&) { return ++kills > 0 && able; },
                       .kill_monitor = [this](const ContainerId&) { return ++monitors > 0; }});
  }
  /// One that runs as this very process.
  ContainerId Container(int number, seconds grace) {
    ContainerRecord record;
    record.set_id(Id(number));
    record.set_pod_id(std::string(64, 'f'));
    record.mutable_metadata()->set_name(Id(number));
    REQUIRE(state->ReserveContainer(record).ok());
    const ContainerId id(record.id());
    REQUIRE(state
                ->ChangeContainer(
                    id,
                    [&](ContainerRecord& change) {
                      change.set_phase(v1::LIVE);
                      change.set_state(cri::CONTAINER_RUNNING);
                      change.set_stop_kill_at((clock.Wall() + grace).time_since_epoch().count());
                      change.set_stop_kill_at_steady(
                          (clock.Now() + grace).time_since_epoch().count());
                      *change.mutable_init() = RecordOf(os::ProcessId::Of(getpid()).value());
                      return Status::Ok();
                    })
                .ok());
    return id;
  }
  void Exit(const ContainerId& id) {
    REQUIRE(state
                ->ChangeContainer(id,
                                  [](ContainerRecord& change) {
                                    change.set_state(cri::CONTAINER_EXITED);
                                    return Status::Ok();
                                  })
                .ok());
  }
  /// Its process is gone, and nobody says so.
  void Vanish(const ContainerId& id) {
    REQUIRE(state
                ->ChangeContainer(id,
                                  [](ContainerRecord& change) {
                                    change.mutable_init()->set_start_time(1);
                                    return Status::Ok();
                                  })
                .ok());
  }
  Stops::Done Count() {
    return [this](const Status& status) {
      last = status;
      ++done;
    };
  }

  testing::TestRoot root;
  testing::ManualClock clock;
  std::unique_ptr<State> state;
  std::atomic<int> kills{0}, monitors{0}, done{0};
  std::atomic<bool> able{true};  // to kill
  Status last;
  std::unique_ptr<Stops> stops;
};

std::size_t Threads() { return os::ListDir("/proc/self/task").value().size(); }

}  // namespace

TEST_CASE("Five hundred containers in their grace hold no threads, and each ends as it should") {
  StopsFixture fixture;
  const std::size_t before = Threads();
  for (int i = 0; i < 500; ++i) {
    fixture.stops->Await(fixture.Container(i, seconds(i % 2 == 0 ? 60 : 600)), fixture.Count());
  }
  CHECK(Threads() == before);
  REQUIRE(Eventually([&] { return fixture.stops->counts().stopping == 500; }));
  REQUIRE(fixture.clock.WaitForWaiters(1));
  CHECK(fixture.kills == 0);
  for (int i = 0; i < 500; i += 10) fixture.Exit(ContainerId(Id(i)));
  CHECK(Eventually([&] { return fixture.done == 50; }));
  CHECK(fixture.last.ok());
  const ContainerId last = fixture.Container(1000, seconds(65));
  fixture.stops->Await(last, fixture.Count());
  fixture.clock.Advance(seconds(61));
  CHECK(Eventually([&] { return fixture.kills == 200; }));
  // By the kill of the last one all the others that were due have been looked at.
  fixture.clock.Advance(seconds(5));
  CHECK(Eventually([&] { return fixture.kills == 201; }));
  CHECK(fixture.done == 50);
  fixture.Exit(last);
  CHECK(Eventually([&] { return fixture.done == 51; }));
  for (int i = 0; i < 500; i += 2) fixture.Exit(ContainerId(Id(i)));
  CHECK(Eventually([&] { return fixture.done == 251; }));
  CHECK(fixture.stops->counts().stopping == 250);
  CHECK(Threads() == before);
}

TEST_CASE("A container that outlives SIGKILL is told, and killed again later") {
  StopsFixture fixture;
  const ContainerId id = fixture.Container(1, seconds(0));
  fixture.stops->Await(id, fixture.Count());
  REQUIRE(Eventually([&] { return fixture.kills == 1; }));
  REQUIRE(fixture.clock.WaitForWaiters(1));
  fixture.clock.Advance(seconds(10));
  REQUIRE(Eventually([&] { return fixture.done == 1; }));
  CHECK(fixture.last.code() == Code::kDeadlineExceeded);
  INFO(fixture.last.message());
  CHECK(fixture.last.message().find(fmt::format("process {}", getpid())) != std::string::npos);
  CHECK(fixture.last.message().find("in state") != std::string::npos);
  CHECK(fixture.stops->counts().stuck == 1);
  REQUIRE(fixture.stops->stuck().size() == 1);
  const SteadyTime since = fixture.stops->stuck()[0].since;
  CHECK(fixture.stops->stuck()[0].id == id);
  CHECK(since == fixture.clock.Now());
  REQUIRE(fixture.clock.WaitForWaiters(1));
  fixture.clock.Advance(seconds(30));
  REQUIRE(Eventually([&] { return fixture.kills == 2; }));
  // Who asks again waits anew.
  fixture.stops->Await(id, fixture.Count());
  REQUIRE(Eventually([&] { return fixture.kills == 3; }));
  CHECK(fixture.done == 1);
  CHECK(fixture.stops->stuck()[0].since == since);
  fixture.Exit(id);
  REQUIRE(Eventually([&] { return fixture.done == 2; }));
  CHECK(fixture.last.ok());
  CHECK(fixture.stops->stuck().empty());
  CHECK(fixture.stops->counts().stopping == 0);
}

TEST_CASE("A monitor that says nothing of an ended container is killed") {
  StopsFixture fixture;
  const ContainerId id = fixture.Container(1, seconds(0));
  fixture.Vanish(id);
  fixture.stops->Await(id, fixture.Count());
  REQUIRE(Eventually([&] { return fixture.kills == 1; }));
  REQUIRE(fixture.clock.WaitForWaiters(1));
  fixture.clock.Advance(seconds(10));
  REQUIRE(Eventually([&] { return fixture.monitors == 1; }));
  CHECK(fixture.done == 0);
}

TEST_CASE("A SIGKILL that could not be asked for is asked for again before anybody is told") {
  StopsFixture fixture;
  fixture.able = false;
  const ContainerId id = fixture.Container(1, seconds(0));
  fixture.stops->Await(id, fixture.Count());
  REQUIRE(Eventually([&] { return fixture.kills == 1; }));
  for (int i = 2; i < 5; ++i) {
    REQUIRE(fixture.clock.WaitForWaiters(1));
    fixture.clock.Advance(seconds(20));
    REQUIRE(Eventually([&] { return fixture.kills == i; }));
  }
  CHECK(fixture.done == 0);
  CHECK(fixture.stops->counts().stuck == 0);
  fixture.able = true;
  REQUIRE(fixture.clock.WaitForWaiters(1));
  fixture.clock.Advance(seconds(1));
  REQUIRE(Eventually([&] { return fixture.kills == 5; }));
  REQUIRE(fixture.clock.WaitForWaiters(1));
  fixture.clock.Advance(seconds(10));
  REQUIRE(Eventually([&] { return fixture.done == 1; }));
  CHECK(fixture.kills == 5);
}

TEST_CASE("Where a stuck container ends at last, its silent monitor is killed") {
  StopsFixture fixture;
  const ContainerId id = fixture.Container(1, seconds(0));
  fixture.stops->Await(id, fixture.Count());
  REQUIRE(Eventually([&] { return fixture.kills == 1; }));
  REQUIRE(fixture.clock.WaitForWaiters(1));
  fixture.clock.Advance(seconds(10));
  REQUIRE(Eventually([&] { return fixture.stops->counts().stuck == 1; }));
  fixture.Vanish(id);
  REQUIRE(fixture.clock.WaitForWaiters(1));
  fixture.clock.Advance(seconds(30));
  REQUIRE(Eventually([&] { return fixture.monitors == 1; }));
  CHECK(fixture.kills == 1);
}

TEST_CASE("A grace does not end sooner or later because the wall clock is set") {
  StopsFixture fixture;
  ContainerRecord record = *fixture.state->FindContainer(fixture.Container(1, seconds(60)));
  const SteadyTime at = fixture.clock.Now() + seconds(60);
  CHECK(Stops::KillTimeOf(record, fixture.clock) == at);
  record.set_stop_kill_at(1);
  CHECK(Stops::KillTimeOf(record, fixture.clock) == at);
  // Of an older version: what is left by the wall clock.
  record.set_stop_kill_at((fixture.clock.Wall() + seconds(7)).time_since_epoch().count());
  record.clear_stop_kill_at_steady();
  CHECK(Stops::KillTimeOf(record, fixture.clock) == fixture.clock.Now() + seconds(7));
}

TEST_CASE("Whoever waits for a stop is told when the daemon goes") {
  StopsFixture fixture;
  fixture.stops->Await(fixture.Container(1, seconds(60)), fixture.Count());
  fixture.stops->Close();
  CHECK(fixture.done == 1);
  CHECK(fixture.last.code() == Code::kUnavailable);
  fixture.stops->Await(ContainerId(Id(1)), fixture.Count());
  CHECK(fixture.done == 2);
}
