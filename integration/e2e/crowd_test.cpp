#include <algorithm>
#include <atomic>
#include <future>
#include <random>
#include <thread>

#include "integration/e2e/shared_node.h"

namespace crisp::harness {
namespace {

// Many clients at once, each with pods of its own: what one asks for is right whatever the others
// do, and in the end nothing is left.

using cri::ContainerState;

/// One client. Catch's macros are for one thread: what is wrong is collected.
class Client {
 public:
  Client(const Node& node, int number)
      : cri_(node.NewClient()), random_(static_cast<unsigned>(number)) {}

  void LiveOnePod(const cri::PodSandboxConfig& pod_config,
                  const std::vector<cri::ContainerConfig>& configs) {
    const auto pod = cri_->RunPod(pod_config);
    if (!Check("RunPodSandbox", pod)) return;
    const std::string id = pod->pod_sandbox_id();
    for (std::size_t i = 0; i < configs.size(); ++i) {
      LiveOneContainer(id, pod_config, configs[i], static_cast<int>(i));
    }
    CheckThat("the pod is READY",
              cri_->PodStatus(id)->status().state() == cri::PodSandboxState::SANDBOX_READY);
    cri::PodSandboxFilter filter;
    filter.set_id(id);
    CheckThat("the pod is listed", cri_->ListPods(filter)->items_size() == 1);
    // As often as one likes, and at the same time.
    const auto remove = [this, &id] { return cri_->RemovePod(id); };
    auto other = std::async(std::launch::async, remove);
    if (random_() % 2 == 0) Check("StopPodSandbox", cri_->StopPod(id));
    Check("RemovePodSandbox", remove());
    Check("RemovePodSandbox beside it", other.get());
    CheckThat("the pod is gone", cri_->ListPods(filter)->items_size() == 0);
  }

  std::vector<std::string> wrong;

 private:
  void LiveOneContainer(const std::string& pod, const cri::PodSandboxConfig& pod_config,
                        const cri::ContainerConfig& config, int number) {
    const auto created = cri_->Create(pod, config, pod_config);
    if (!Check("CreateContainer", created)) return;
    const std::string id = created->container_id();
    if (!Check("StartContainer", cri_->Start(id))) return;
    const auto ran = cri_->ExecSync(id, {"cat", "/proc/sys/kernel/hostname"}, 60);
    Check("ExecSync", ran);
    cri::LinuxContainerResources resources;
    resources.set_cpu_shares(100 + number);
    Check("UpdateContainerResources", cri_->UpdateResources(id, resources));
    CheckThat("its resources are told",
              cri_->ContainerStatus(id)->status().resources().linux().cpu_shares() == 100 + number);
    cri::ReopenContainerLogRequest reopen;
    reopen.set_container_id(id);
    Check("ReopenContainerLog",
          cri_->Call(&cri::RuntimeService::StubInterface::ReopenContainerLog, reopen));
    if (random_() % 3 == 0) return;  // it goes with its pod
    const auto stop = [this, &id](int grace) { return cri_->Stop(id, grace); };
    auto other = std::async(std::launch::async, stop, 30);
    Check("StopContainer", stop(random_() % 2 == 0 ? 0 : 20));
    Check("StopContainer beside it", other.get());
    const auto status = cri_->ContainerStatus(id)->status();
    // By its own code, or by a signal: SIGKILL, or SIGTERM before its shell had come to the trap.
    const int code = status.exit_code();
    CheckThat("it has ended as it was told to",
              status.state() == ContainerState::CONTAINER_EXITED &&
                  (code == 40 + number || code == 137 || code == 143));
    if (random_() % 2 == 0) Check("RemoveContainer", cri_->Remove(id));
  }
  template <typename Response>
  bool Check(const std::string& what, const Answer<Response>& answer) {
    if (!answer.ok()) wrong.push_back(what + ": " + Describe(answer.status));
    return answer.ok();
  }
  void CheckThat(const std::string& what, bool holds) {
    if (!holds) wrong.push_back("not so: " + what);
  }

  std::unique_ptr<Cri> cri_;
  std::minstd_rand random_;
};

TEST_CASE("Eight clients with pods, containers and commands of their own at the same time") {
  OnNode on;
  constexpr int kClients = 8;
  constexpr int kPodsEach = 3;
  const auto config_of_pod = [&on](int number) {
    auto config = on.node.PodConfig("crowd", /*host_network=*/number % 3 == 0);
    if (number % 4 == 1) {
      config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
          cri::NamespaceMode::POD);
    }
    return config;
  };
  const auto config_of_container = [&on](int number) {
    const std::string code = std::to_string(40 + number);
    return on.node.ContainerConfig(
        "c" + std::to_string(number),
        {"sh", "-c", "trap 'exit " + code + "' TERM; while :; do sleep 0.1; done"});
  };
  const std::vector<cri::ContainerConfig> containers = {config_of_container(0),
                                                        config_of_container(1)};
  std::vector<std::vector<cri::PodSandboxConfig>> pods(kClients);
  for (int i = 0; i < kClients * kPodsEach; ++i) {
    pods[static_cast<std::size_t>(i % kClients)].push_back(config_of_pod(i));
  }
  std::atomic<bool> done{false};
  auto watching = std::async(std::launch::async, [&] {
    const auto cri = on.node.NewClient();
    int failed = 0;
    while (!done) {
      if (!cri->ListContainers().ok() || !cri->ListPods().ok()) ++failed;
      const auto stats = cri->Call(&cri::RuntimeService::StubInterface::ListContainerStats, {});
      if (!stats.ok()) ++failed;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return failed;
  });
  std::vector<Client> clients;
  for (int i = 0; i < kClients; ++i) clients.emplace_back(on.node, i);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < clients.size(); ++i) {
    threads.emplace_back([&client = clients[i], &mine = pods[i], &containers] {
      for (const auto& config : mine) client.LiveOnePod(config, containers);
    });
  }
  for (std::thread& thread : threads) thread.join();
  done = true;
  CHECK(watching.get() == 0);
  for (const Client& client : clients) {
    for (const std::string& what : client.wrong) UNSCOPED_INFO(what);
    CHECK(client.wrong.empty());
  }
  CHECK(on.cri.ListPods()->items_size() == 0);
  CHECK(on.cri.ListContainers()->containers_size() == 0);
}

}  // namespace
}  // namespace crisp::harness
