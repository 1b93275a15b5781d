#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using Runtime = cri::RuntimeService::StubInterface;

/// A file of a v1 cgroup.
std::string CgroupFile(const std::string& controller, const std::string& cgroup,
                       const std::string& file) {
  std::string text =
      os::ReadFile("/sys/fs/cgroup/" + controller + cgroup + "/" + file).value_or("(none)");
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::string CgroupOf(const cri::PodSandboxConfig& pod, const std::string& container) {
  return pod.linux().cgroup_parent() + "/crisp-" + container;
}

cri::ContainerConfig Limited(OnNode& on, const std::vector<std::string>& command,
                             std::int64_t memory_bytes) {
  auto config = on.node.ContainerConfig("c", command);
  auto* resources = config.mutable_linux()->mutable_resources();
  resources->set_memory_limit_in_bytes(memory_bytes);
  resources->set_memory_swap_limit_in_bytes(memory_bytes);
  resources->set_cpu_shares(512);
  resources->set_cpu_period(100000);
  resources->set_cpu_quota(50000);
  return config;
}

TEST_CASE("Resources of created and running containers are updated, and zeros are not meant") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("update", true);
  const std::string pod = on.Pod(pod_config);
  const std::string id = on.Created(pod, pod_config, Limited(on, {"sleep", "1000"}, 64 << 20));
  const std::string cgroup = CgroupOf(pod_config, id);
  CHECK(on.StatusOf(id).resources().linux().cpu_shares() == 512);

  // As the kubelet resizes: memory and swap together, the shares by themselves.
  cri::LinuxContainerResources change;
  change.set_memory_limit_in_bytes(128 << 20);
  change.set_memory_swap_limit_in_bytes(128 << 20);
  REQUIRE_OK(on.cri.UpdateResources(id, change));
  CHECK(CgroupFile("memory", cgroup, "memory.limit_in_bytes") == "134217728");
  CHECK(CgroupFile("cpu", cgroup, "cpu.shares") == "512");
  auto now = on.StatusOf(id).resources().linux();
  CHECK(now.memory_limit_in_bytes() == 128 << 20);
  CHECK(now.cpu_shares() == 512);
  CHECK(now.cpu_quota() == 50000);

  REQUIRE_OK(on.cri.Start(id));
  change.Clear();
  change.set_cpu_shares(1024);
  change.set_cpu_period(50000);
  change.set_cpu_quota(40000);
  change.set_memory_limit_in_bytes(32 << 20);
  change.set_oom_score_adj(500);
  REQUIRE_OK(on.cri.UpdateResources(id, change));
  CHECK(CgroupFile("memory", cgroup, "memory.limit_in_bytes") == "33554432");
  CHECK(CgroupFile("cpu", cgroup, "cpu.shares") == "1024");
  CHECK(CgroupFile("cpu", cgroup, "cpu.cfs_quota_us") == "40000");
  CHECK(CgroupFile("cpu", cgroup, "cpu.cfs_period_us") == "50000");
  CHECK(on.cri.ExecSync(id, {"cat", "/proc/1/oom_score_adj"})->stdout() == "500\n");
  // Nothing said, nothing done.
  REQUIRE_OK(on.cri.UpdateResources(id, {}));
  now = on.StatusOf(id).resources().linux();
  CHECK(now.memory_limit_in_bytes() == 32 << 20);
  CHECK(now.memory_swap_limit_in_bytes() == 32 << 20);
  CHECK(now.cpu_shares() == 1024);
  CHECK(now.oom_score_adj() == 500);

  // What is in force is on record.
  on.node.KillDaemon("rund");
  CHECK(Eventually([&] {
    const auto status = on.cri.ContainerStatus(id);
    return status.ok() && status->status().resources().linux().cpu_quota() == 40000;
  }));

  REQUIRE_OK(on.cri.Stop(id, 0));
  CHECK(on.cri.UpdateResources(id, change).code() == grpc::StatusCode::FAILED_PRECONDITION);
  CHECK(on.cri.UpdateResources(std::string(64, 'e'), change).code() == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("An update is whole or nothing") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("whole", true);
  const std::string pod = on.Pod(pod_config);
  const std::string id = on.Running(pod, pod_config, Limited(on, {"sleep", "1000"}, 64 << 20));
  const std::string cgroup = CgroupOf(pod_config, id);
  cri::LinuxContainerResources change;
  change.set_cpu_shares(100);
  change.set_memory_limit_in_bytes(100 << 20);
  change.set_cpuset_cpus("4000");
  const auto refused = on.cri.UpdateResources(id, change);
  REQUIRE_FALSE(refused.ok());
  INFO(refused.message());
  CHECK(refused.message().find("cpuset.cpus") != std::string::npos);
  CHECK(CgroupFile("cpu", cgroup, "cpu.shares") == "512");
  CHECK(CgroupFile("memory", cgroup, "memory.limit_in_bytes") == "67108864");
  const auto now = on.StatusOf(id).resources().linux();
  CHECK(now.cpu_shares() == 512);
  CHECK(now.memory_limit_in_bytes() == 64 << 20);
  CHECK(now.cpuset_cpus().empty());

  change.Clear();
  (*change.mutable_unified())["memory.high"] = "1";
  CHECK(on.cri.UpdateResources(id, change).code() == grpc::StatusCode::INVALID_ARGUMENT);
  change.Clear();
  change.add_hugepage_limits()->set_page_size("2MB");
  CHECK(on.cri.UpdateResources(id, change).ok());
}

TEST_CASE("A memory limit below what is in use is refused, and kills nobody") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("in-use", true);
  const std::string pod = on.Pod(pod_config);
  const auto config =
      Limited(on, {"sh", "-c", R"(head -c 30000000 /dev/zero > /dev/shm/x; echo up; sleep 1000)"},
              256 << 20);
  const std::string id = on.Running(pod, pod_config, config);
  REQUIRE(on.Log(pod_config, config, "up").find("up") != std::string::npos);
  cri::LinuxContainerResources change;
  change.set_memory_limit_in_bytes(10 << 20);
  const auto refused = on.cri.UpdateResources(id, change);
  CHECK(refused.code() == grpc::StatusCode::FAILED_PRECONDITION);
  INFO(refused.message());
  CHECK(refused.message().find("memory_limit_in_bytes") != std::string::npos);
  CHECK(on.StatusOf(id).state() == cri::ContainerState::CONTAINER_RUNNING);
  CHECK(on.StatusOf(id).resources().linux().memory_limit_in_bytes() == 256 << 20);
}

TEST_CASE("A pod's own cgroup has the pod's resources, from the start and after an update") {
  OnNode on;
  auto pod_config = on.node.PodConfig("pod-resources", true);
  const std::string cgroup = pod_config.linux().cgroup_parent() + "/own";
  pod_config.mutable_linux()->set_cgroup_parent(cgroup);
  auto* resources = pod_config.mutable_linux()->mutable_resources();
  resources->set_memory_limit_in_bytes(64 << 20);
  resources->set_cpu_shares(300);
  pod_config.mutable_linux()->mutable_overhead()->set_memory_limit_in_bytes(1 << 20);
  const std::string pod = on.Pod(pod_config);
  CHECK(CgroupFile("memory", cgroup, "memory.limit_in_bytes") == std::to_string(65 << 20));
  CHECK(CgroupFile("cpu", cgroup, "cpu.shares") == "300");
  on.Running(pod, pod_config, on.node.ContainerConfig("c", {"sleep", "1000"}));

  cri::UpdatePodSandboxResourcesRequest request;
  request.set_pod_sandbox_id(pod.substr(0, 13));
  request.mutable_resources()->set_memory_limit_in_bytes(80 << 20);
  REQUIRE_OK(on.cri.Call(&Runtime::UpdatePodSandboxResources, request));
  CHECK(CgroupFile("memory", cgroup, "memory.limit_in_bytes") == std::to_string(81 << 20));
  CHECK(CgroupFile("cpu", cgroup, "cpu.shares") == "300");
  request.mutable_resources()->set_cpuset_cpus("4000");
  request.mutable_resources()->set_memory_limit_in_bytes(90 << 20);
  CHECK_FALSE(on.cri.Call(&Runtime::UpdatePodSandboxResources, request).ok());
  CHECK(CgroupFile("memory", cgroup, "memory.limit_in_bytes") == std::to_string(81 << 20));
  REQUIRE_OK(on.cri.StopPod(pod));
  CHECK(on.cri.Call(&Runtime::UpdatePodSandboxResources, request).code() ==
        grpc::StatusCode::FAILED_PRECONDITION);
  request.set_pod_sandbox_id(std::string(64, 'e'));
  CHECK(on.cri.Call(&Runtime::UpdatePodSandboxResources, request).code() ==
        grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("The cgroup of a kubelet's pod is the kubelet's to limit") {
  OnNode on;
  auto pod_config = on.node.PodConfig("kubelets", true);
  pod_config.mutable_linux()->mutable_resources()->set_cpu_shares(333);
  const std::string before = CgroupFile("cpu", pod_config.linux().cgroup_parent(), "cpu.shares");
  const std::string pod = on.Pod(pod_config);
  cri::UpdatePodSandboxResourcesRequest request;
  request.set_pod_sandbox_id(pod);
  request.mutable_resources()->set_cpu_shares(444);
  REQUIRE_OK(on.cri.Call(&Runtime::UpdatePodSandboxResources, request));
  CHECK(CgroupFile("cpu", pod_config.linux().cgroup_parent(), "cpu.shares") == before);
}

}  // namespace
}  // namespace crisp::harness
