#include <catch2/catch.hpp>

#include "libs/testing/manual_clock.h"
#include "services/crid/core/event_fanout.h"
#include "services/crid/core/view.h"

namespace crisp::crid {
namespace {

using rund::v1::WatchEvent;
namespace cri = runtime::v1;

const std::string kPod(64, 'a');
const std::string kFirst(64, 'b');
const std::string kSecond(64, 'c');

void AddPod(WatchEvent& event, cri::PodSandboxState state) {
  auto* entry = event.add_pods();
  entry->set_id(kPod);
  entry->mutable_metadata()->set_uid("u");
  entry->set_phase(state == cri::SANDBOX_READY ? rund::v1::LIVE : rund::v1::STOPPED);
  cri::PodSandbox item;
  item.set_id(kPod);
  item.set_state(state);
  entry->set_list_item(item.SerializeAsString());
  cri::PodSandboxStatus status;
  status.set_id(kPod);
  status.set_state(state);
  entry->set_status(status.SerializeAsString());
}

void AddContainer(WatchEvent& event, const std::string& id, cri::ContainerState state,
                  bool started = true) {
  auto* entry = event.add_containers();
  entry->set_id(id);
  entry->set_pod_id(kPod);
  entry->mutable_metadata()->set_name(id.substr(0, 1));
  entry->set_phase(rund::v1::LIVE);
  cri::Container item;
  item.set_id(id);
  item.set_state(state);
  entry->set_list_item(item.SerializeAsString());
  cri::ContainerStatus status;
  status.set_id(id);
  status.set_state(state);
  if (started && state != cri::CONTAINER_CREATED) status.set_started_at(7);
  entry->set_status(status.SerializeAsString());
}

/// A view of one rund, and the events that come of what it tells.
struct Fixture {
  testing::ManualClock clock;
  View view{std::chrono::seconds(1)};
  std::vector<cri::ContainerEventResponse> events;
  bool listens = true;
  EventFanout fanout{
      clock, [this] { return listens; },
      [this](const std::string& bytes) { REQUIRE(events.emplace_back().ParseFromString(bytes)); }};
  std::uint64_t seq = 0;

  Fixture() {
    view.SetEvents(&fanout);
    view.Add("1");
    Snapshot([](WatchEvent&) {});
  }
  void Tell(const std::function<void(WatchEvent&)>& fill, bool snapshot = false) {
    WatchEvent event;
    event.set_seq(++seq);
    event.set_snapshot(snapshot);
    fill(event);
    view.Apply("1", event);
  }
  void Snapshot(const std::function<void(WatchEvent&)>& fill) { Tell(fill, true); }
  void Up(cri::ContainerState state) {
    Tell([](WatchEvent& e) { AddPod(e, cri::SANDBOX_READY); });
    Tell([state](WatchEvent& e) { AddContainer(e, kFirst, state); });
  }
  /// "a:CREATED b:STOPPED": the first letter of the id and what happened since the last call.
  std::string Happened() {
    std::string text;
    for (const auto& event : events) {
      std::string name = cri::ContainerEventType_Name(event.container_event_type());
      name = name.substr(10, name.size() - 16);  // CONTAINER_x_EVENT
      text += (text.empty() ? "" : " ") + event.container_id().substr(0, 1) + ":" + name;
    }
    events.clear();
    return text;
  }
};

TEST_CASE("Events: each step is told once, with the statuses of that moment") {
  Fixture f;
  f.Tell([](WatchEvent& e) { AddPod(e, cri::SANDBOX_READY); });
  CHECK(f.Happened() == "a:CREATED a:STARTED");
  f.Tell([](WatchEvent& e) { AddContainer(e, kFirst, cri::CONTAINER_CREATED); });
  REQUIRE(f.events.size() == 1);
  CHECK(f.events[0].pod_sandbox_status().id() == kPod);
  REQUIRE(f.events[0].containers_statuses_size() == 1);
  CHECK(f.events[0].containers_statuses(0).state() == cri::CONTAINER_CREATED);
  CHECK(f.Happened() == "b:CREATED");
  f.Tell([](WatchEvent& e) { AddContainer(e, kFirst, cri::CONTAINER_RUNNING); });
  f.Tell([](WatchEvent& e) { AddContainer(e, kFirst, cri::CONTAINER_RUNNING); });  // no step
  CHECK(f.Happened() == "b:STARTED");
  f.Tell([](WatchEvent& e) { AddContainer(e, kSecond, cri::CONTAINER_CREATED); });
  f.Tell([](WatchEvent& e) { AddContainer(e, kFirst, cri::CONTAINER_EXITED); });
  REQUIRE(f.events.size() == 2);
  CHECK(f.events[1].containers_statuses_size() == 2);
  CHECK(f.Happened() == "c:CREATED b:STOPPED");
  f.Tell([](WatchEvent& e) { e.add_removed_container_ids(kFirst); });
  REQUIRE(f.events.size() == 1);
  CHECK(f.events[0].containers_statuses_size() == 1);
  CHECK(f.Happened() == "b:DELETED");
  f.Tell([](WatchEvent& e) { AddPod(e, cri::SANDBOX_NOTREADY); });
  f.Tell([](WatchEvent& e) { e.add_removed_container_ids(kSecond); });
  f.Tell([](WatchEvent& e) { e.add_removed_pod_ids(kPod); });
  REQUIRE(f.events.size() == 4);
  CHECK(f.events[3].pod_sandbox_status().state() == cri::SANDBOX_NOTREADY);
  CHECK(f.Happened() == "a:STOPPED c:STOPPED c:DELETED a:DELETED");
}

TEST_CASE("Events: a container that is killed before its start was never started") {
  Fixture f;
  f.Up(cri::CONTAINER_CREATED);
  f.Happened();
  f.Tell([](WatchEvent& e) { AddContainer(e, kFirst, cri::CONTAINER_EXITED, false); });
  CHECK(f.Happened() == "b:STOPPED");
}

TEST_CASE("Events: what happened while rund was away follows from its next snapshot, once") {
  Fixture f;
  f.Up(cri::CONTAINER_RUNNING);
  CHECK(f.Happened() == "a:CREATED a:STARTED b:CREATED b:STARTED");
  f.view.Lost("1");
  f.Snapshot([](WatchEvent& e) {
    AddContainer(e, kFirst, cri::CONTAINER_EXITED);
    AddContainer(e, kSecond, cri::CONTAINER_RUNNING);
    AddPod(e, cri::SANDBOX_READY);
  });
  CHECK(f.Happened() == "b:STOPPED c:CREATED c:STARTED");
  f.view.Lost("1");
  f.Snapshot([](WatchEvent& e) {
    AddContainer(e, kFirst, cri::CONTAINER_EXITED);
    AddContainer(e, kSecond, cri::CONTAINER_RUNNING);
    AddPod(e, cri::SANDBOX_READY);
  });
  CHECK(f.Happened().empty());
  f.view.Lost("1");
  f.Snapshot([](WatchEvent&) {});
  REQUIRE_FALSE(f.events.empty());
  CHECK(f.events.back().pod_sandbox_status().state() == cri::SANDBOX_NOTREADY);
  CHECK(f.Happened() == "b:DELETED c:STOPPED c:DELETED a:STOPPED a:DELETED");
}

TEST_CASE("Events: what there was when an instance is met first is no news") {
  testing::ManualClock clock;
  Fixture f;
  f.view.Add("2");
  WatchEvent event;
  event.set_snapshot(true);
  AddPod(event, cri::SANDBOX_READY);
  f.view.Apply("2", event);
  CHECK(f.Happened().empty());
  event.Clear();
  event.set_seq(1);
  AddPod(event, cri::SANDBOX_NOTREADY);
  f.view.Apply("2", event);
  CHECK(f.Happened() == "a:STOPPED");
}

TEST_CASE("Events: their times grow even while the clock stands still or goes back") {
  Fixture f;
  f.Up(cri::CONTAINER_RUNNING);
  std::int64_t last = 0;
  for (const auto& event : f.events) {
    CHECK(event.created_at() > last);
    last = event.created_at();
  }
  CHECK(f.events.size() == 4);
}

TEST_CASE("Events: nothing is made while nobody listens") {
  Fixture f;
  f.listens = false;
  f.Up(cri::CONTAINER_RUNNING);
  CHECK(f.Happened().empty());
  f.listens = true;
  f.Tell([](WatchEvent& e) { AddContainer(e, kFirst, cri::CONTAINER_EXITED); });
  CHECK(f.Happened() == "b:STOPPED");
}

}  // namespace
}  // namespace crisp::crid
