#include <algorithm>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

// On a hybrid cgroup machine crun runs only where the v2 tree cannot be seen: a node of its own.

TEST_CASE("crun runs pods and containers as the second handler") {
  Node node({.yaml = "", .without_unified = true});
  const Cri& cri = node.cri();
  const auto config = node.PodConfig("crun");
  const auto pod = cri.RunPod(config, "crun");
  REQUIRE_OK(pod);
  node.Remember(pod->pod_sandbox_id());
  CHECK(cri.PodStatus(pod->pod_sandbox_id())->status().runtime_handler() == "crun");
  const auto container =
      cri.Create(pod->pod_sandbox_id(),
                 node.ContainerConfig("c", {"sh", "-c", "echo by crun; sleep 1000"}), config);
  REQUIRE_OK(container);
  REQUIRE_OK(cri.Start(container->container_id()));
  const auto ran = cri.ExecSync(container->container_id(), {"sh", "-c", "exit 3"});
  REQUIRE_OK(ran);
  CHECK(ran->exit_code() == 3);
  REQUIRE_OK(cri.Stop(container->container_id(), 0));
  CHECK(cri.ContainerStatus(container->container_id())->status().exit_code() == 137);
  const std::vector<std::string> left = node.CleanUp();
  for (const std::string& line : left) UNSCOPED_INFO(line);
  CHECK(left.empty());
}

TEST_CASE("Handlers come and go with the settings at a SIGHUP; what runs under one is kept") {
  Node node({.yaml = "", .without_unified = true});
  const Cri& cri = node.cri();
  const auto offered = [&cri] {
    const auto status = cri.Status();
    const auto& handlers = status->runtime_handlers();
    return std::any_of(handlers.begin(), handlers.end(),
                       [](const cri::RuntimeHandler& one) { return one.name() == "second"; });
  };
  const std::string settings = node.dir() + "/crisp.yaml";
  const std::string before = os::ReadFile(settings).value();
  CHECK_FALSE(offered());
  REQUIRE(
      os::WriteFile(settings, before + "rund:\n  runtimes:\n    second: {path: /usr/sbin/runc}\n")
          .ok());
  node.Signal("rund", "HUP");
  REQUIRE(Eventually(offered));
  const auto config = node.PodConfig("second");
  const auto pod = cri.RunPod(config, "second");
  REQUIRE_OK(pod);
  node.Remember(pod->pod_sandbox_id());
  const auto container =
      cri.Create(pod->pod_sandbox_id(), node.ContainerConfig("c", {"sleep", "1000"}), config);
  REQUIRE_OK(container);
  node.Remember(container->container_id());
  REQUIRE_OK(cri.Start(container->container_id()));

  REQUIRE(os::WriteFile(settings, before).ok());
  node.Signal("rund", "HUP");
  REQUIRE(Eventually([&] { return !offered(); }));
  CHECK(cri.RunPod(node.PodConfig("late"), "second").code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(cri.ContainerStatus(container->container_id())->status().state() ==
        cri::ContainerState::CONTAINER_RUNNING);
  REQUIRE_OK(cri.Stop(container->container_id(), 0));
  const std::vector<std::string> left = node.CleanUp();
  for (const std::string& line : left) UNSCOPED_INFO(line);
  CHECK(left.empty());
}

}  // namespace
}  // namespace crisp::harness
