// How containers and pods are ended, and who waits for whom meanwhile.
#include <catch2/catch.hpp>
#include <csignal>

#include "libs/os/files.h"
#include "services/rund/core/parts.h"
#include "services/rund/tests/test_node.h"

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT
namespace cri = runtime::v1;
using std::chrono::seconds;

TEST_CASE("Stop sends the stop signal, and SIGKILL when the grace is over") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId polite = node.Run(
      pod, {.command = {"sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"}});
  TestNode::Await([&] { return node.Log().find("up") != std::string::npos; });
  REQUIRE(node.End(polite, seconds(10)).ok());
  CHECK(node.StatusOf(polite).exit_code() == 7);
  const ContainerId deaf =
      node.Run(pod, {.command = {"sh", "-c", "trap '' TERM; while :; do sleep 1; done"},
                     .name = "deaf",
                     .log_path = "deaf.log"});
  REQUIRE(node.End(deaf, seconds(1)).ok());
  CHECK(node.StatusOf(deaf).exit_code() == 137);
  REQUIRE(node.End(deaf, seconds(1)).ok());
  REQUIRE(node.End(ContainerId("gone"), seconds(1)).ok());
}

TEST_CASE("Creates that hang keep no stop from what it has to do") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  // SIGKILL alone does not end it.
  const os::Cgroups& cgroups = node.engine().parts().cgroups;
  const std::string& cgroup = node.state().FindContainer(id)->cgroup_path();
  REQUIRE((cgroups.mode() == os::CgroupMode::kV2
               ? os::WriteExisting(cgroups.UnifiedDir(cgroup).value() + "/cgroup.freeze", "1")
               : os::WriteExisting(cgroups.DirFor("freezer", cgroup).value() + "/freezer.state",
                                   "FROZEN"))
              .ok());
  std::promise<void> gate;
  const std::shared_future<void> open = gate.get_future().share();
  for (std::size_t i = 0; i < work::PoolOptions{}.create.cap; ++i) {
    REQUIRE(
        node.pool().Submit(work::Lane::kCreate, TestNode::Call(), [open] { open.wait(); }).ok());
  }
  CHECK(node.End(id, seconds(0)).ok());
  gate.set_value();
  RemovePod(node, pod);
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A later stop shortens the grace of one that waits") {
  TestNode node;
  const ContainerId id =
      node.Run(node.Pod(), {.command = {"sh", "-c", "trap '' TERM; while :; do sleep 1; done"}});
  auto first = node.BeginEnd(id, seconds(1000));
  REQUIRE(node.state().FindContainer(id)->stop_asked_at() != 0);
  CHECK(node.End(id, seconds(0)).ok());
  CHECK(first.get().ok());
  CHECK(node.StatusOf(id).exit_code() == 137);
}

TEST_CASE("A pod that is removed takes its running containers along") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId one = node.Run(pod, {.name = "one", .log_path = ""});
  const ContainerId two = node.Create(pod, {.name = "two", .log_path = ""});
  const auto removed = node.pods().Remove(TestNode::Call(), pod);
  REQUIRE(removed.ok());
  CHECK(removed->container_ids_size() == 2);
  CHECK(IsEmpty(node.Leftovers()));
  CHECK(node.pods().Remove(TestNode::Call(), pod).ok());
}

TEST_CASE("Whoever waits for containers that do not end holds no lock, and waits for all at once") {
  TestNode node;
  const PodId pod = node.Pod();
  const std::vector<ContainerId> ids = {node.Run(pod, {.name = "a", .log_path = "a/0.log"}),
                                        node.Run(pod, {.name = "b", .log_path = "b/0.log"})};
  // Their monitors do not tell of the end.
  const auto signal_monitors = [&](int signal) {
    for (const ContainerId& id : ids) {
      kill(node.state().FindContainer(id)->monitor().pid(), signal);
    }
  };
  signal_monitors(SIGSTOP);
  const auto call = GENERATE(std::function([](TestNode& on, const PodId& id) {
                               return on.pods().Stop(TestNode::Call(), id).ok();
                             }),
                             std::function([](TestNode& on, const PodId& id) {
                               return on.pods().Remove(TestNode::Call(), id).ok();
                             }));
  auto first = std::async(std::launch::async, [&] { return call(node, pod); });
  auto second = std::async(std::launch::async, [&] { return call(node, pod); });
  auto remove = std::async(std::launch::async,
                           [&] { return node.containers().Remove(TestNode::Call(), ids[0]).ok(); });
  for (const ContainerId& id : ids) {
    TestNode::Await([&] { return node.state().FindContainer(id)->stop_asked_at() != 0; });
  }
  work::LockTable& locks = node.engine().parts().locks;
  TestNode::Await([&] { return locks.size() == 0; });
  CHECK(node.StatusOf(ids[0]).state() == cri::CONTAINER_RUNNING);
  signal_monitors(SIGCONT);
  CHECK(first.get());
  CHECK(second.get());
  CHECK(remove.get());
  REQUIRE(node.pods().Remove(TestNode::Call(), pod).ok());
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A stopped pod stays, not ready, and takes no containers") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  REQUIRE(node.pods().Stop(TestNode::Call(), pod).ok());
  REQUIRE(node.pods().Stop(TestNode::Call(), pod).ok());
  CHECK(node.pods().GetStatus(pod, false)->status().state() == cri::SANDBOX_NOTREADY);
  CHECK(node.StatusOf(id).exit_code() == 137);
  v1::ReserveContainerRequest request;
  request.set_container_id(std::string(64, '1'));
  request.set_pod_id(pod.str());
  request.mutable_metadata()->set_name("late");
  CHECK(node.containers().Reserve(request).code() == Code::kFailedPrecondition);
  RemovePod(node, pod);
  CHECK(IsEmpty(node.Leftovers()));
}
