#include <algorithm>
#include <future>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

const std::vector<std::string> kDeaf = {
    "sh", "-c", "trap 'echo got it' TERM; echo up; while :; do sleep 0.1; done"};

int ThreadsOf(Node& node, const std::string& daemon) {
  const Ran ran = node.Inside({"ls", "/proc/" + node.DaemonPid(daemon) + "/task"});
  return static_cast<int>(std::count(ran.out.begin(), ran.out.end(), '\n'));
}

steady_clock::duration Timed(const std::function<void()>& call) {
  const auto start = steady_clock::now();
  call();
  return steady_clock::now() - start;
}

/// The longest of fifty ListContainers.
steady_clock::duration SlowestList(const Cri& cri) {
  steady_clock::duration slowest{};
  for (int i = 0; i < 50; ++i) {
    slowest = std::max(slowest, Timed([&] { CHECK(cri.ListContainers().ok()); }));
  }
  return slowest;
}

/// A pod whose containers can be made to outlive SIGKILL: what is in a frozen cgroup (v1) does not
/// die until that thaws, as in uninterruptible sleep. Thawed in any case.
class FrozenPod {
 public:
  FrozenPod(OnNode& on, int containers) : on_(on), config_(on.node.PodConfig("stuck", true)) {
    config_.mutable_linux()->set_cgroup_parent(config_.linux().cgroup_parent() + "/stuck");
    pod_ = on.Pod(config_);
    for (int i = 0; i < containers; ++i) {
      ids_.push_back(on.Running(
          pod_, config_, on.node.ContainerConfig("c" + std::to_string(i), {"sleep", "1000"})));
    }
  }
  FrozenPod(const FrozenPod&) = delete;
  FrozenPod& operator=(const FrozenPod&) = delete;
  ~FrozenPod() { Set("THAWED"); }
  void Set(const std::string& state) const {
    const std::string file =
        "/sys/fs/cgroup/freezer" + config_.linux().cgroup_parent() + "/freezer.state";
    CHECK(os::WriteExisting(file, state).ok());
    CHECK(Eventually([&] { return os::ReadFile(file).value_or("") == state + "\n"; }));
  }
  const std::vector<std::string>& ids() const { return ids_; }
  const std::string& pod() const { return pod_; }

 private:
  OnNode& on_;
  cri::PodSandboxConfig config_;
  std::string pod_;
  std::vector<std::string> ids_;
};

TEST_CASE("Five hundred stops in their grace hold no threads, and lists stay fast") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("many", true);
  const std::string pod = on.Pod(pod_config);
  std::vector<std::string> ids;
  for (int i = 0; i < 20; ++i) {
    ids.push_back(
        on.Running(pod, pod_config, on.node.ContainerConfig("c" + std::to_string(i), kDeaf)));
  }
  // Threads that had work go after ten seconds without.
  REQUIRE(Eventually([&] { return ThreadsOf(on.node, "rund") < 25; }, seconds(20)));
  std::vector<std::future<Answer<cri::StopContainerResponse>>> stops;
  for (int i = 0; i < 500; ++i) {
    const std::string& id = ids[static_cast<std::size_t>(i) % ids.size()];
    stops.push_back(std::async(std::launch::async, [&on, id] { return on.cri.Stop(id, 300); }));
  }
  std::this_thread::sleep_for(seconds(12));
  CHECK(ThreadsOf(on.node, "rund") < 25);
  CHECK(ThreadsOf(on.node, "crid") < 25);
  CHECK(SlowestList(on.cri) < milliseconds(200));
  // Somebody in more of a hurry ends it for all.
  for (const std::string& id : ids) CHECK(on.cri.Stop(id, 0).ok());
  for (auto& stop : stops) CHECK(stop.get().ok());
  for (const std::string& id : ids) CHECK(on.StatusOf(id).exit_code() == 137);
}

TEST_CASE("A stop whose caller leaves goes on; its signal comes once") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("left", true);
  const std::string pod = on.Pod(pod_config);
  const auto config = on.node.ContainerConfig("c", kDeaf);
  const std::string id = on.Running(pod, pod_config, config);
  REQUIRE(on.Log(pod_config, config, "up").find("up") != std::string::npos);
  CHECK(on.cri.Stop(id, 2, milliseconds(100)).code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  // Longer is not granted, and no second signal is sent.
  CHECK(on.cri.Stop(id, 100, milliseconds(300)).code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  const auto status = on.Exited(id);
  CHECK(status.exit_code() == 137);
  CHECK(status.reason() == "Error");
  const std::string log = on.Log(pod_config, config, "got it");
  CHECK(log.find("got it") != std::string::npos);
  CHECK(log.find("got it") == log.rfind("got it"));
}

TEST_CASE("Stops and removes of the same container all succeed; a remove does not wait") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("together", true);
  const std::string pod = on.Pod(pod_config);
  const std::string id = on.Running(pod, pod_config, on.node.ContainerConfig("c", kDeaf));
  std::vector<std::future<grpc::Status>> calls;
  for (int i = 0; i < 4; ++i) {
    calls.push_back(
        std::async(std::launch::async, [&on, id] { return on.cri.Stop(id, 300).status; }));
  }
  std::this_thread::sleep_for(milliseconds(300));
  const auto took = Timed([&] {
    for (int i = 0; i < 4; ++i) {
      calls.push_back(
          std::async(std::launch::async, [&on, id] { return on.cri.Remove(id).status; }));
    }
    for (auto& call : calls) {
      const grpc::Status status = call.get();
      INFO(Describe(status));
      CHECK(status.ok());
    }
  });
  CHECK(took < seconds(10));
  CHECK(on.cri.ContainerStatus(id).code() == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("All of a container ends with it, also in the host's PID namespace") {
  OnNode on;
  auto pod_config = on.node.PodConfig("whole", true);
  pod_config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
      cri::NamespaceMode::NODE);
  const std::string pod = on.Pod(pod_config);
  // The child is deaf, has another session and outlives its parent.
  auto config = on.node.ContainerConfig(
      "c", {"sh", "-c", "setsid sh -c \"trap '' TERM; while :; do sleep 1; done\" & sleep 1000"});
  config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
      cri::NamespaceMode::NODE);
  const std::string id = on.Running(pod, pod_config, config);
  const std::string procs = "/sys/fs/cgroup/memory" + pod_config.linux().cgroup_parent() +
                            "/crisp-" + id + "/cgroup.procs";
  REQUIRE(Eventually([&] {
    const std::string text = os::ReadFile(procs).value_or("");
    return std::count(text.begin(), text.end(), '\n') >= 3;
  }));
  REQUIRE_OK(on.cri.Stop(id, 1));
  CHECK(Eventually([&] { return os::ReadFile(procs).value_or("").empty(); }));
}

TEST_CASE("Twenty containers that outlive SIGKILL are reported, and hold up nobody else") {
  OnNode on;
  FrozenPod stuck(on, 20);
  const std::string other = on.Sleeper("free");
  stuck.Set("FROZEN");
  std::vector<std::future<Answer<cri::StopContainerResponse>>> stops;
  const auto start = steady_clock::now();
  for (const std::string& id : stuck.ids()) {
    stops.push_back(std::async(std::launch::async, [&on, id] { return on.cri.Stop(id, 0); }));
  }
  std::this_thread::sleep_for(milliseconds(500));
  CHECK(SlowestList(on.cri) < milliseconds(200));
  CHECK(Timed([&] { REQUIRE_OK(on.cri.Stop(other, 0)); }) < seconds(5));
  CHECK(on.cri.ContainerStatus(stuck.ids().front()).ok());
  for (auto& stop : stops) {
    const auto answer = stop.get();
    CHECK(answer.code() == grpc::StatusCode::DEADLINE_EXCEEDED);
    CHECK(answer.message().find("after SIGKILL") != std::string::npos);
    CHECK(answer.message().find("sleep") != std::string::npos);
  }
  CHECK(steady_clock::now() - start < seconds(25));
  CHECK(on.StatusOf(stuck.ids().front()).state() == cri::ContainerState::CONTAINER_RUNNING);
  stuck.Set("THAWED");
  for (const std::string& id : stuck.ids()) CHECK(on.Exited(id).exit_code() == 137);
  CHECK(on.cri.Stop(stuck.ids().front(), 0).ok());
}

TEST_CASE("Statistics and lists of the others come while containers are frozen and stuck in stop") {
  OnNode on;
  FrozenPod stuck(on, 5);
  const auto pod_config = on.node.PodConfig("busy", true);
  const std::string pod = on.Pod(pod_config);
  const std::string busy = on.Running(
      pod, pod_config, on.node.ContainerConfig("c", {"sh", "-c", "while :; do :; done"}));
  stuck.Set("FROZEN");
  std::vector<std::future<Answer<cri::StopContainerResponse>>> stops;
  for (const std::string& id : stuck.ids()) {
    stops.push_back(std::async(std::launch::async, [&on, id] { return on.cri.Stop(id, 0); }));
  }
  // As patient as crictl: a call that one of them holds up fails.
  constexpr seconds kPatience{2};
  using Runtime = cri::RuntimeService::StubInterface;
  const auto cpu_of_busy = [&] {
    const auto list =
        on.cri.Call(&Runtime::ListContainerStats, cri::ListContainerStatsRequest(), kPatience);
    REQUIRE_OK(list);
    std::map<std::string, std::uint64_t> cpu;
    for (const auto& stats : list->stats()) {
      cpu[stats.attributes().id()] = stats.cpu().usage_core_nano_seconds().value();
      CHECK(stats.memory().usage_bytes().value() > 0);
    }
    for (const std::string& id : stuck.ids()) CHECK(cpu.contains(id));
    return cpu[busy];
  };
  const std::uint64_t before = cpu_of_busy();
  CHECK(Eventually([&] { return cpu_of_busy() > before; }));
  const auto pods =
      on.cri.Call(&Runtime::ListPodSandboxStats, cri::ListPodSandboxStatsRequest(), kPatience);
  REQUIRE_OK(pods);
  CHECK(pods->stats_size() == 2);
  const auto metrics =
      on.cri.Call(&Runtime::ListPodSandboxMetrics, cri::ListPodSandboxMetricsRequest(), kPatience);
  REQUIRE_OK(metrics);
  CHECK(metrics->pod_metrics_size() == 2);
  CHECK(on.cri.ListContainers().ok());
  CHECK(on.cri.ListPods().ok());
  stuck.Set("THAWED");
  for (auto& stop : stops) stop.get();
}

TEST_CASE("kill -9 of rund in a container's grace: the call waits, the end comes in time") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("crash", true);
  const std::string pod = on.Pod(pod_config);
  const auto config = on.node.ContainerConfig("c", kDeaf);
  const std::string id = on.Running(pod, pod_config, config);
  REQUIRE(on.Log(pod_config, config, "up").find("up") != std::string::npos);
  auto stop = std::async(std::launch::async, [&] { return on.cri.Stop(id, 3); });
  REQUIRE(on.Log(pod_config, config, "got it").find("got it") != std::string::npos);
  on.node.KillDaemon("rund");
  const auto answer = stop.get();
  REQUIRE_OK(answer);
  CHECK(on.StatusOf(id).exit_code() == 137);
  CHECK(on.StatusOf(id).reason() == "Error");
  const std::string log = on.Log(pod_config, config, "got it");
  CHECK(log.find("got it") == log.rfind("got it"));
}

TEST_CASE("An OOM kill while rund is away is told as one when it is back") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("oom-away", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig(
      "c", {"sh", "-c",
            "while [ ! -e /tmp/go ]; do sleep 0.05; done; exec dd if=/dev/zero of=/dev/null "
            "bs=200M count=1"});
  config.mutable_linux()->mutable_resources()->set_memory_limit_in_bytes(16 << 20);
  config.mutable_linux()->mutable_resources()->set_memory_swap_limit_in_bytes(16 << 20);
  const std::string id = on.Running(pod, pod_config, config);
  {
    // A second's head start for the kill.
    REQUIRE_OK(on.cri.ExecSync(id, {"sh", "-c", "(sleep 1; touch /tmp/go) >/dev/null 2>&1 &"}));
    const auto away = on.node.Away("rund");
    std::this_thread::sleep_for(seconds(3));
  }
  const auto status = on.Exited(id);
  CHECK(status.exit_code() == 137);
  CHECK(status.reason() == "OOMKilled");
  CHECK(status.finished_at() > status.started_at());
}

TEST_CASE("Whatever becomes of containers while rund is away is known when it is back") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("away", true);
  const std::string pod = on.Pod(pod_config);
  const auto running = [&](const std::string& name, const std::string& script) {
    const auto config = on.node.ContainerConfig(name, {"sh", "-c", "echo up; " + script});
    const std::string id = on.Running(pod, pod_config, config);
    REQUIRE(on.Log(pod_config, config, "up").find("up") != std::string::npos);
    return id;
  };
  const auto pid_of = [&on](const std::string& id) {
    const auto status = on.cri.ContainerStatus(id, true);
    REQUIRE_OK(status);
    return std::to_string(nlohmann::json::parse(status->info().at("info")).at("pid").get<int>());
  };
  const std::string waits = "while [ ! -e /dev/shm/go ]; do sleep 0.05; done; ";
  const auto created = [&](const std::string& name) {
    return on.Created(pod, pod_config, on.node.ContainerConfig(name, {"sleep", "1000"}));
  };
  const std::string still_created = created("created");
  const std::string killed_created = created("killed-created");
  const std::string well = running("well", waits + "exit 0");
  const std::string badly = running("badly", waits + "exit 3");
  const std::string killed = running("killed", "while :; do sleep 0.05; done");
  const std::string obeys =
      running("obeys", "trap 'sleep 1.5; exit 7' TERM; while :; do sleep 0.05; done");
  const std::string deaf = running("deaf", "trap '' TERM; while :; do sleep 0.05; done");
  const std::string lives = running("lives", "while :; do sleep 0.05; done");
  const std::vector<std::string> victims = {pid_of(killed_created), pid_of(killed)};
  std::vector<std::future<Answer<cri::StopContainerResponse>>> stops;
  for (const auto& [id, grace] : {std::pair{obeys, 30}, std::pair{deaf, 2}}) {
    stops.push_back(std::async(std::launch::async,
                               [&on, id = id, grace = grace] { return on.cri.Stop(id, grace); }));
  }
  {
    // Both stops are under way, and neither container has ended.
    std::this_thread::sleep_for(milliseconds(800));
    REQUIRE_OK(
        on.cri.ExecSync(lives, {"sh", "-c", "(sleep 1; touch /dev/shm/go) >/dev/null 2>&1 &"}));
    const auto away = on.node.Away("rund");
    CHECK(on.node.Inside({"kill", "-9", victims[0], victims[1]}).code == 0);
    std::this_thread::sleep_for(milliseconds(2500));
  }
  for (auto& stop : stops) CHECK(stop.get().ok());
  const auto check = [&on](const std::string& id, int code, const std::string& reason) {
    const auto status = on.Exited(id);
    INFO(status.metadata().name() << ": " << status.reason() << " " << status.message());
    CHECK(status.exit_code() == code);
    CHECK(status.reason() == reason);
    CHECK(status.finished_at() > status.created_at());
  };
  check(killed_created, 137, "Error");
  check(well, 0, "Completed");
  check(badly, 3, "Error");
  check(killed, 137, "Error");
  check(obeys, 7, "Error");
  check(deaf, 137, "Error");
  CHECK(on.StatusOf(lives).state() == cri::ContainerState::CONTAINER_RUNNING);
  CHECK(on.StatusOf(still_created).state() == cri::ContainerState::CONTAINER_CREATED);
  REQUIRE_OK(on.cri.Start(still_created));
  CHECK(on.StatusOf(still_created).state() == cri::ContainerState::CONTAINER_RUNNING);
}

TEST_CASE("A child that runs out of memory leaves its container's own end alone") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("oom-child", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig(
      "c", {"sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1; echo child $?; sleep 1000"});
  config.mutable_linux()->mutable_resources()->set_memory_limit_in_bytes(16 << 20);
  config.mutable_linux()->mutable_resources()->set_memory_swap_limit_in_bytes(16 << 20);
  const std::string id = on.Running(pod, pod_config, config);
  REQUIRE(on.Log(pod_config, config, "child 137").find("child 137") != std::string::npos);
  REQUIRE_OK(on.cri.Stop(id, 0));
  const auto status = on.StatusOf(id);
  CHECK(status.exit_code() == 137);
  CHECK(status.reason() == "Error");
}

TEST_CASE("Times of a pod's containers grow, whatever becomes of them") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("times", true);
  const std::string pod = on.Pod(pod_config);
  std::int64_t last = on.cri.PodStatus(pod)->status().created_at();
  for (int attempt = 0; attempt < 3; ++attempt) {
    auto config = on.node.ContainerConfig("c", {"true"});
    config.mutable_metadata()->set_attempt(static_cast<std::uint32_t>(attempt));
    const auto status = on.Exited(on.Running(pod, pod_config, config));
    CHECK(status.created_at() > last);
    CHECK(status.started_at() > status.created_at());
    CHECK(status.finished_at() > status.started_at());
    last = status.finished_at();
  }
}

TEST_CASE("A container that breaks its seccomp filter says so") {
  OnNode on;
  const std::string profile = on.node.dir() + "/logs/kill.json";
  REQUIRE(os::WriteFile(profile,
                        R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[)"
                        R"({"names":["mkdir","mkdirat"],"action":"SCMP_ACT_KILL_PROCESS"}]})")
              .ok());
  const auto pod_config = on.node.PodConfig("seccomp", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {"mkdir", "/tmp/x"});
  auto* seccomp = config.mutable_linux()->mutable_security_context()->mutable_seccomp();
  seccomp->set_profile_type(cri::SecurityProfile::Localhost);
  seccomp->set_localhost_ref(profile);
  const auto status = on.Exited(on.Running(pod, pod_config, config));
  CHECK(status.exit_code() == 159);
  CHECK(status.reason() == "seccomp killed");
}

}  // namespace
}  // namespace crisp::harness
