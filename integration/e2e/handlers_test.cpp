#include <algorithm>
#include <future>

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

TEST_CASE("A runtime whose creates hang holds up the containers of no other one") {
  Node node;
  const Cri& cri = node.cri();
  const std::string hung = node.dir() + "/hung";
  const std::string go = node.dir() + "/go";
  const std::string program = node.dir() + "/hangs";
  REQUIRE(os::MakeDirs(hung).ok());
  REQUIRE(os::WriteFile(program,
                        "#!/bin/sh\ncase \" $* \" in *\" create \"*)\n"
                        "  touch " +
                            hung +
                            "/$$\n"
                            "  while [ ! -e " +
                            go +
                            " ]; do sleep 0.2; done\n"
                            "  exit 1 ;;\nesac\nexec /usr/sbin/runc \"$@\"\n",
                        0755)
              .ok());
  const std::string settings = node.dir() + "/crisp.yaml";
  REQUIRE(os::WriteFile(settings, os::ReadFile(settings).value() +
                                      "rund:\n  runtimes:\n    hangs: {path: " + program + "}\n")
              .ok());
  node.Signal("rund", "HUP");
  REQUIRE(Eventually([&cri] {
    const auto answer = cri.Status();
    const auto& handlers = answer->runtime_handlers();
    return std::any_of(handlers.begin(), handlers.end(),
                       [](const cri::RuntimeHandler& one) { return one.name() == "hangs"; });
  }));
  const std::string image = node.Busybox();
  const auto hung_config = node.PodConfig("hung", true);
  const auto hung_pod = cri.RunPod(hung_config, "hangs");
  REQUIRE_OK(hung_pod);
  constexpr int kHung = 40;
  std::vector<std::future<grpc::StatusCode>> creates;
  for (int i = 0; i < kHung; ++i) {
    const auto config = node.ContainerConfig("c" + std::to_string(i), {"sleep", "1000"});
    creates.push_back(std::async(std::launch::async, [&cri, &hung_pod, &hung_config, config] {
      return cri.Create(hung_pod->pod_sandbox_id(), config, hung_config).code();
    }));
  }
  REQUIRE(Eventually([&hung] { return os::ListDir(hung).value().size() == kHung; },
                     std::chrono::seconds(30)));

  constexpr std::chrono::seconds kSoon{20};
  const auto config = node.PodConfig("other", true);
  const auto pod = cri.RunPod(config, "", kSoon);
  REQUIRE_OK(pod);
  const auto container_config = node.ContainerConfig("c", {"sh", "-c", "echo up; sleep 1000"});
  const auto container = cri.Create(pod->pod_sandbox_id(), container_config, config, kSoon);
  REQUIRE_OK(container);
  const std::string& id = container->container_id();
  REQUIRE_OK(cri.Start(id, kSoon));
  CHECK(cri.ExecSync(id, {"true"}).ok());
  cri::LinuxContainerResources resources;
  resources.set_cpu_shares(512);
  CHECK(cri.UpdateResources(id, resources, kSoon).ok());
  cri::ReopenContainerLogRequest reopen;
  reopen.set_container_id(id);
  CHECK(cri.Call(&cri::RuntimeService::StubInterface::ReopenContainerLog, reopen, kSoon).ok());
  CHECK(cri.Stop(id, 0, kSoon).ok());
  CHECK(cri.Remove(id, kSoon).ok());
  CHECK(cri.StopPod(pod->pod_sandbox_id(), kSoon).ok());
  CHECK(cri.RemovePod(pod->pod_sandbox_id(), kSoon).ok());
  CHECK(os::ListDir(hung).value().size() == kHung);  // and still they hang

  REQUIRE(os::WriteFile(go, "").ok());
  for (auto& create : creates) CHECK(create.get() != grpc::StatusCode::OK);
  const std::vector<std::string> left = node.CleanUp();
  for (const std::string& line : left) UNSCOPED_INFO(line);
  CHECK(left.empty());
}

}  // namespace
}  // namespace crisp::harness
