#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "integration/e2e/shared_node.h"

namespace crisp::harness {
namespace {

using Type = cri::ContainerEventType;

/// A client of GetContainerEvents: from the constructor on nothing is missed.
class Events {
 public:
  explicit Events(const Cri& cri) {
    reader_ = cri.runtime().GetContainerEvents(&context_, cri::GetEventsRequest());
    reader_->WaitForInitialMetadata();
    thread_ = std::thread([this] {
      cri::ContainerEventResponse event;
      while (reader_->Read(&event)) {
        const std::lock_guard lock(mutex_);
        events_.push_back(event);
      }
      ended_ = true;
    });
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
  ~Events() {
    context_.TryCancel();
    thread_.join();
    static_cast<void>(reader_->Finish().ok());
  }

  bool ended() const { return ended_; }
  std::vector<cri::ContainerEventResponse> All() const {
    const std::lock_guard lock(mutex_);
    return events_;
  }
  /// What happened to this pod or container, in order.
  std::vector<Type> Of(const std::string& id) const {
    std::vector<Type> types;
    for (const auto& event : All()) {
      if (event.container_id() == id) types.push_back(event.container_event_type());
    }
    return types;
  }
  bool Await(const std::string& id, Type type) const {
    return Eventually([&] {
      const auto types = Of(id);
      return !types.empty() && types.back() == type;
    });
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderInterface<cri::ContainerEventResponse>> reader_;
  std::thread thread_;
  mutable std::mutex mutex_;
  std::vector<cri::ContainerEventResponse> events_;
  std::atomic<bool> ended_{false};
};

/// The rules that hold for every event of a stream.
void CheckRules(const Events& events) {
  std::map<std::string, std::int64_t> last;
  for (const auto& event : events.All()) {
    const auto& pod = event.pod_sandbox_status();
    CHECK_FALSE(pod.metadata().uid().empty());
    CHECK(event.created_at() > last[pod.id()]);
    last[pod.id()] = event.created_at();
    CHECK(event.created_at() >= pod.created_at());
    for (const auto& container : event.containers_statuses()) {
      CHECK(event.created_at() >= container.started_at());
      if (container.id() != event.container_id()) continue;
      if (event.container_event_type() == Type::CONTAINER_STOPPED_EVENT) {
        CHECK(container.state() == cri::ContainerState::CONTAINER_EXITED);
      }
      if (event.container_event_type() == Type::CONTAINER_STARTED_EVENT) {
        CHECK(container.state() != cri::ContainerState::CONTAINER_CREATED);
      }
    }
  }
}

const std::vector<Type> kWholeLife = {Type::CONTAINER_CREATED_EVENT, Type::CONTAINER_STARTED_EVENT,
                                      Type::CONTAINER_STOPPED_EVENT, Type::CONTAINER_DELETED_EVENT};

TEST_CASE("Events: the whole life of a pod and a container, each step once, with full statuses") {
  OnNode on;
  const Events events(on.cri);
  const auto pod_config = on.node.PodConfig("events", true);
  const std::string pod = on.Pod(pod_config);
  const std::string short_lived =
      on.Running(pod, pod_config, on.node.ContainerConfig("short", {"sh", "-c", "exit 3"}));
  CHECK(events.Await(short_lived, Type::CONTAINER_STOPPED_EVENT));
  const std::string stopped =
      on.Running(pod, pod_config, on.node.ContainerConfig("stopped", {"sleep", "1000"}));
  REQUIRE_OK(on.cri.Stop(stopped, 0));
  const std::string removed =
      on.Created(pod, pod_config, on.node.ContainerConfig("removed", {"sleep", "1000"}));
  REQUIRE_OK(on.cri.Remove(removed));
  REQUIRE_OK(on.cri.StopPod(pod));
  REQUIRE_OK(on.cri.RemovePod(pod));
  REQUIRE(events.Await(pod, Type::CONTAINER_DELETED_EVENT));

  CHECK(events.Of(pod) == kWholeLife);
  CHECK(events.Of(short_lived) == kWholeLife);
  CHECK(events.Of(stopped) == kWholeLife);
  CHECK(events.Of(removed) == std::vector{Type::CONTAINER_CREATED_EVENT,
                                          Type::CONTAINER_STOPPED_EVENT,
                                          Type::CONTAINER_DELETED_EVENT});
  CheckRules(events);
  const auto all = events.All();
  CHECK(all.front().container_id() == pod);
  CHECK(all.back().container_id() == pod);
  for (const auto& event : all) {
    if (event.container_id() != short_lived ||
        event.container_event_type() != Type::CONTAINER_STOPPED_EVENT) {
      continue;
    }
    CHECK(event.pod_sandbox_status().state() == cri::PodSandboxState::SANDBOX_READY);
    REQUIRE(event.containers_statuses_size() == 1);
    CHECK(event.containers_statuses(0).exit_code() == 3);
    CHECK(event.containers_statuses(0).reason() == "Error");
    CHECK(event.containers_statuses(0).metadata().name() == "short");
  }
}

TEST_CASE("Events: the stream outlives a killed rund, and what happened meanwhile comes once") {
  OnNode on;
  const Events events(on.cri);
  const auto pod_config = on.node.PodConfig("killed", true);
  const std::string pod = on.Pod(pod_config);
  const std::string before =
      on.Running(pod, pod_config,
                 on.node.ContainerConfig(
                     "before", {"sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.05; done"}));
  const std::string stays =
      on.Running(pod, pod_config, on.node.ContainerConfig("stays", {"sleep", "1000"}));
  REQUIRE(events.Await(stays, Type::CONTAINER_STARTED_EVENT));
  const auto status = on.cri.ContainerStatus(before, true);
  REQUIRE_OK(status);
  const auto pid = nlohmann::json::parse(status->info().at("info")).at("pid").get<int>();
  {
    const auto away = on.node.Away("rund");
    on.node.Inside({"kill", "-TERM", std::to_string(pid)});
    CHECK(Eventually([&] {
      return on.node.Inside({"test", "-e", "/proc/" + std::to_string(pid)}).code != 0;
    }));
    CHECK_FALSE(events.ended());
  }
  CHECK(events.Await(before, Type::CONTAINER_STOPPED_EVENT));
  for (int round = 0; round < 3; ++round) {
    on.node.KillDaemon("rund");
    const std::string after = on.Running(
        pod, pod_config,
        on.node.ContainerConfig("after" + std::to_string(round), {"sh", "-c", "exit 0"}));
    CHECK(events.Await(after, Type::CONTAINER_STOPPED_EVENT));
    REQUIRE_OK(on.cri.Remove(after));
    CHECK(events.Await(after, Type::CONTAINER_DELETED_EVENT));
    CHECK(events.Of(after) == kWholeLife);
  }
  CHECK_FALSE(events.ended());
  REQUIRE_OK(on.cri.RemovePod(pod));
  REQUIRE(events.Await(pod, Type::CONTAINER_DELETED_EVENT));
  CHECK(events.Of(pod) == kWholeLife);
  CHECK(events.Of(before) == kWholeLife);
  CHECK(events.Of(stays) == kWholeLife);
  CheckRules(events);
}

TEST_CASE("Events: every client gets all of them; one that leaves disturbs nobody") {
  OnNode on;
  const Events first(on.cri);
  const auto client = on.node.NewClient();
  auto second = std::make_unique<Events>(*client);
  const std::string id = on.Sleeper("clients");
  CHECK(first.Await(id, Type::CONTAINER_STARTED_EVENT));
  CHECK(second->Await(id, Type::CONTAINER_STARTED_EVENT));
  second.reset();
  REQUIRE_OK(on.cri.Stop(id, 0));
  CHECK(first.Await(id, Type::CONTAINER_STOPPED_EVENT));
  CHECK(first.Of(id).size() == 3);
}

}  // namespace
}  // namespace crisp::harness
