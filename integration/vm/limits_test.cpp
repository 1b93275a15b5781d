// What the cgroup of a pod and of a container hold, and who is ended by them.
#include "integration/vm/vm_node.h"

namespace crisp::harness {
namespace {

using Runtime = cri::RuntimeService::StubInterface;

cri::ContainerConfig Limited(Vm& vm, const std::vector<std::string>& command,
                             std::int64_t memory_bytes) {
  auto config = vm.ContainerConfig(command);
  auto* resources = config.mutable_linux()->mutable_resources();
  resources->set_memory_limit_in_bytes(memory_bytes);
  resources->set_memory_swap_limit_in_bytes(memory_bytes);
  resources->set_cpu_shares(512);
  resources->set_cpu_period(100000);
  resources->set_cpu_quota(50000);
  (*resources->mutable_unified())["pids.max"] = "40";
  return config;
}

/// A file of the container's cgroup or, where that has none of it, of the one above.
std::string Effective(const Vm& vm, const std::string& id, const std::string& file) {
  const std::string dir = vm.CgroupDir(id);
  const std::string own = FileText(dir + "/" + file);
  if (own != "(none)" && !own.starts_with("max")) return own;
  return dir.ends_with("/container") ? FileText(dir + "/../" + file) : own;
}

TEST_CASE("Limits are in force, and are seen from inside", "[short]") {
  Vm vm;
  const auto pod_config = vm.PodConfig("limits");
  const std::string pod = vm.Pod(pod_config);
  const std::string id = vm.Running(pod, pod_config, Limited(vm, {"sleep", "1000"}, 64 << 20));
  CHECK(vm.CgroupDir(id).starts_with("/sys/fs/cgroup" + pod_config.linux().cgroup_parent() + "/"));
  CHECK(Effective(vm, id, "memory.max") == "67108864");
  CHECK(Effective(vm, id, "memory.swap.max") == "0");
  CHECK(Effective(vm, id, "cpu.max") == "50000 100000");
  CHECK(Effective(vm, id, "pids.max") == "40");
  // A cgroup namespace of its own: it is the root of what it sees.
  CHECK(vm.Said(id, "cat /proc/self/cgroup") == "0::/");
  CHECK(vm.Said(id, "ls /sys/fs/cgroup | grep -c memory.events") == "2");
  // A fork bomb ends at the limit.
  const auto bomb = vm.cri.ExecSync(
      id, {"sh", "-c", "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done"}, 100);
  CHECK(bomb->stderr().find("fork") != std::string::npos);
}

TEST_CASE("An update is in force at once, and after a daemon-reload", "[short]") {
  Vm vm;
  const auto pod_config = vm.PodConfig("update");
  const std::string pod = vm.Pod(pod_config);
  const std::string id = vm.Running(pod, pod_config, Limited(vm, {"sleep", "1000"}, 64 << 20));
  cri::LinuxContainerResources change;
  change.set_memory_limit_in_bytes(128 << 20);
  change.set_memory_swap_limit_in_bytes(128 << 20);
  change.set_cpu_shares(1024);
  change.set_cpu_period(50000);
  change.set_cpu_quota(20000);
  change.set_cpuset_cpus("0");
  REQUIRE_OK(vm.cri.UpdateResources(id, change));
  const auto check = [&] {
    CHECK(Effective(vm, id, "memory.max") == "134217728");
    CHECK(Effective(vm, id, "cpu.max") == "20000 50000");
    CHECK(Effective(vm, id, "cpu.weight") == "39");
    CHECK(Effective(vm, id, "cpuset.cpus") == "0");
    // No limit above it is lower than its own.
    const std::string above = FileText(vm.CgroupDir(id) + "/../memory.max");
    CHECK((above == "max" || above == "134217728"));
  };
  check();
  Sh("systemctl daemon-reload");
  check();
  CHECK(vm.StatusOf(id).resources().linux().cpu_quota() == 20000);

  change.Clear();
  change.set_memory_limit_in_bytes(100 << 20);
  change.set_cpuset_cpus("4000");
  CHECK_FALSE(vm.cri.UpdateResources(id, change).ok());
  CHECK(Effective(vm, id, "memory.max") == "134217728");
}

TEST_CASE("A container without limits gets its first ones by an update", "[short]") {
  Vm vm;
  const auto pod_config = vm.PodConfig("first");
  const std::string pod = vm.Pod(pod_config);
  const std::string id = vm.Running(pod, pod_config, vm.ContainerConfig({"sleep", "1000"}));
  // Meanwhile systemd looks again at what it has to enable.
  Sh("systemctl daemon-reload");
  cri::LinuxContainerResources change;
  change.set_cpu_quota(30000);
  change.set_cpu_period(100000);
  change.set_cpuset_cpus("0");
  change.set_memory_limit_in_bytes(64 << 20);
  REQUIRE_OK(vm.cri.UpdateResources(id, change));
  const auto check = [&] {
    CHECK(Effective(vm, id, "cpu.max") == "30000 100000");
    CHECK(Effective(vm, id, "cpuset.cpus") == "0");
    CHECK(Effective(vm, id, "memory.max") == "67108864");
  };
  check();
  Sh("systemctl daemon-reload");
  check();
}

TEST_CASE("Huge pages are limited, and the limit can be changed") {
  Vm vm;
  Sh("echo 4 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
  const auto pod_config = vm.PodConfig("huge");
  const std::string pod = vm.Pod(pod_config);
  auto config = vm.ContainerConfig({"sleep", "1000"});
  auto* limit = config.mutable_linux()->mutable_resources()->add_hugepage_limits();
  limit->set_page_size("2MB");
  limit->set_limit(2 << 20);
  const std::string id = vm.Running(pod, pod_config, config);
  CHECK(Effective(vm, id, "hugetlb.2MB.max") == "2097152");
  cri::LinuxContainerResources change;
  *change.add_hugepage_limits() = *limit;
  change.mutable_hugepage_limits(0)->set_limit(4 << 20);
  REQUIRE_OK(vm.cri.UpdateResources(id, change));
  CHECK(Effective(vm, id, "hugetlb.2MB.max") == "4194304");
  Sh("echo 0 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
}

TEST_CASE("What is opted in by annotation: a cgroup to write to, files of it, a larger /dev/shm") {
  Vm vm;
  auto pod_config = vm.PodConfig("opt-in");
  auto& annotations = *pod_config.mutable_annotations();
  annotations["io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw"] = "true";
  annotations["io.kubernetes.cri-o.ShmSize"] = "100Mi";
  annotations["io.kubernetes.cri-o.UnifiedCgroup.c"] = "memory.high=50331648;pids.max=33";
  const std::string pod = vm.Pod(pod_config);
  auto config = vm.ContainerConfig({"sleep", "1000"});
  config.mutable_metadata()->set_name("c");
  const std::string id = vm.Running(pod, pod_config, config);
  CHECK(Effective(vm, id, "memory.high") == "50331648");
  CHECK(Effective(vm, id, "pids.max") == "33");
  CHECK(vm.Said(id, "mkdir /sys/fs/cgroup/mine && ls -d /sys/fs/cgroup/mine") ==
        "/sys/fs/cgroup/mine");
  CHECK(vm.Said(id, "df -k /dev/shm | awk 'END {print $2}'") == "102400");
}

TEST_CASE("The cgroup that we make for a pod has its limits, and goes with it") {
  Vm vm;
  auto pod_config = vm.PodConfig("own");
  pod_config.mutable_linux()->clear_cgroup_parent();
  auto* resources = pod_config.mutable_linux()->mutable_resources();
  resources->set_memory_limit_in_bytes(96 << 20);
  resources->set_cpu_period(100000);
  resources->set_cpu_quota(70000);
  const std::string pod = vm.Pod(pod_config);
  const std::string id = vm.Running(pod, pod_config, vm.ContainerConfig({"sleep", "1000"}));
  std::string dir = vm.CgroupDir(id);
  dir.erase(dir.find("/crisp-" + id));
  CHECK(FileText(dir + "/memory.max") == std::to_string(96 << 20));
  CHECK(FileText(dir + "/cpu.max") == "70000 100000");
  cri::UpdatePodSandboxResourcesRequest request;
  request.set_pod_sandbox_id(pod);
  request.mutable_resources()->set_memory_limit_in_bytes(80 << 20);
  REQUIRE_OK(vm.cri.Call(&Runtime::UpdatePodSandboxResources, request));
  CHECK(FileText(dir + "/memory.max") == std::to_string(80 << 20));
  Sh("systemctl daemon-reload");
  CHECK(FileText(dir + "/memory.max") == std::to_string(80 << 20));
  REQUIRE_OK(vm.cri.StopPod(pod));
  CHECK(Eventually([&] { return FileText(dir + "/memory.max") == "(none)"; }));
}

TEST_CASE("A container that takes too much memory is OOMKilled, each time", "[short]") {
  Vm vm;
  const auto pod_config = vm.PodConfig("oom");
  const std::string pod = vm.Pod(pod_config);
  for (int round = 0; round < 4; ++round) {
    // The first process itself, or one that it started and whose end it passes on.
    const std::vector<std::string> command =
        round % 2 == 0 ? std::vector<std::string>{"tail", "/dev/zero"}
                       : std::vector<std::string>{"sh", "-c", "tail /dev/zero; exit $?"};
    auto config = Limited(vm, command, 16 << 20);
    config.mutable_metadata()->set_attempt(static_cast<unsigned>(round));
    const std::string id = vm.Running(pod, pod_config, config);
    const auto status = vm.Exited(id);
    INFO("round " << round);
    CHECK(status.exit_code() == 137);
    CHECK(status.reason() == "OOMKilled");
    REQUIRE_OK(vm.cri.Remove(id));
  }
  // One that is ended by hand is not, whatever happened to the others.
  const std::string id = vm.Running(pod, pod_config, Limited(vm, {"sleep", "1000"}, 16 << 20));
  Sh("kill -9 " + std::to_string(vm.Pid(id)));
  CHECK(vm.Exited(id).reason() == "Error");
}

TEST_CASE("Statistics of containers and pods") {
  Vm vm;
  const auto pod_config = vm.PodConfig("stats");
  const std::string pod = vm.Pod(pod_config);
  const std::string id = vm.Running(
      pod, pod_config,
      Limited(vm, {"sh", "-c", "x=$(head -c 2000000 /dev/zero | tr '\\0' x); sleep 1000; :"},
              64 << 20));
  cri::ContainerStatsRequest request;
  request.set_container_id(id);
  CHECK(Eventually(
      [&] {
        const auto answer = vm.cri.Call(&Runtime::ContainerStats, request);
        return answer.ok() && answer->stats().memory().working_set_bytes().value() > 2'000'000;
      },
      std::chrono::seconds(30)));
  const auto answer = vm.cri.Call(&Runtime::ContainerStats, request);
  REQUIRE_OK(answer);
  CHECK(answer->stats().cpu().usage_core_nano_seconds().value() > 1'000'000);
  CHECK(answer->stats().memory().available_bytes().value() > 1 << 20);
  CHECK(answer->stats().memory().available_bytes().value() < 64 << 20);
  cri::PodSandboxStatsRequest of_pod;
  of_pod.set_pod_sandbox_id(pod);
  Answer<cri::PodSandboxStatsResponse> pod_stats;
  // The shell and its sleep, once it has its two megabytes.
  CHECK(Eventually(
      [&] {
        pod_stats = vm.cri.Call(&Runtime::PodSandboxStats, of_pod);
        return pod_stats->stats().linux().process().process_count().value() == 2;
      },
      std::chrono::seconds(60)));
  REQUIRE_OK(pod_stats);
  INFO(pod_stats->ShortDebugString());
  CHECK(pod_stats->stats().linux().memory().working_set_bytes().value() > 2'000'000);
  CHECK(pod_stats->stats().linux().containers_size() == 1);
}

}  // namespace
}  // namespace crisp::harness
