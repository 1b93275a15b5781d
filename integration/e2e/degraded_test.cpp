#include <algorithm>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using std::chrono::seconds;

// One daemon is away for a while: the others go on, and what needs it says so by name.

TEST_CASE("While imaged is away creates fail with its name after seconds; the rest works") {
  OnNode on;
  const std::string before = on.Sleeper("before");
  const auto pod_config = on.node.PodConfig("while", true);
  const std::string pod = on.Pod(pod_config);
  const auto config = on.node.ContainerConfig("c", {"sleep", "1000"});
  {
    const auto away = on.node.Away("imaged");
    const auto start = std::chrono::steady_clock::now();
    const auto created = on.cri.Create(pod, config, pod_config);
    const auto took = std::chrono::steady_clock::now() - start;
    INFO(Describe(created.status));
    CHECK(created.code() == grpc::StatusCode::UNAVAILABLE);
    CHECK(created.message().find("imaged") != std::string::npos);
    CHECK(took < seconds(15));
    const auto pulled = on.cri.Pull(on.node.registry() + "/busybox:1");
    CHECK(pulled.code() == grpc::StatusCode::UNAVAILABLE);
    CHECK(pulled.message().find("imaged") != std::string::npos);

    CHECK(on.cri.ListPods()->items_size() == 2);
    CHECK(on.cri.ListContainers()->containers_size() == 1);
    CHECK(on.StatusOf(before).state() == cri::ContainerState::CONTAINER_RUNNING);
    REQUIRE_OK(on.cri.ExecSync(before, {"true"}));
    REQUIRE_OK(on.cri.Stop(before, 0));
    CHECK(on.StatusOf(before).exit_code() == 137);
    const auto status = on.cri.Status();
    REQUIRE_OK(status);
    const auto& conditions = status->status().conditions();
    CHECK(std::any_of(conditions.begin(), conditions.end(), [](const auto& condition) {
      return !condition.status() && condition.message().find("imaged") != std::string::npos;
    }));
  }
  on.Running(pod, pod_config, config);
}

TEST_CASE("A create waits for an imaged that is being restarted") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("restart", true);
  const std::string pod = on.Pod(pod_config);
  on.node.Busybox();
  const auto config = on.node.ContainerConfig("c", {"sleep", "1000"});
  on.node.KillDaemon("imaged");
  on.Running(pod, pod_config, config);
}

TEST_CASE("While netd is away host network pods start, others fail with its name") {
  OnNode on;
  const auto away = on.node.Away("netd");
  on.Pod(on.node.PodConfig("host", true));
  const auto refused = on.cri.RunPod(on.node.PodConfig("cni"));
  INFO(Describe(refused.status));
  CHECK(refused.code() == grpc::StatusCode::UNAVAILABLE);
  CHECK(refused.message().find("netd") != std::string::npos);
  CHECK(on.cri.ListPods()->items_size() == 1);
}

TEST_CASE("While rund is away images work, and calls for pods name it") {
  OnNode on;
  const std::string image = on.node.MakeImage("norund:1", {"--env", "N=norund"})["ref"];
  const std::string id = on.Sleeper("survivor");
  {
    const auto away = on.node.Away("rund");
    REQUIRE_OK(on.cri.Version());
    REQUIRE_OK(on.cri.Pull(image));
    CHECK(on.cri.ImageStatus(image)->has_image());
    const auto refused = on.cri.RunPod(on.node.PodConfig("refused", true));
    CHECK(refused.code() == grpc::StatusCode::UNAVAILABLE);
    CHECK(refused.message().find("rund") != std::string::npos);
  }
  CHECK(on.StatusOf(id).state() == cri::ContainerState::CONTAINER_RUNNING);
}

TEST_CASE("SIGTERM stops the daemons and leaves the containers; the next start finds them") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("upgrade");
  const std::string pod = on.Pod(pod_config);
  const auto config = on.node.ContainerConfig(
      "c", {"sh", "-c", "i=0; while :; do echo tick $((i=i+1)); sleep 0.05; done"});
  const std::string id = on.Running(pod, pod_config, config);
  const std::string ip = on.cri.PodStatus(pod)->status().network().ip();
  const std::int64_t started = on.StatusOf(id).started_at();
  const auto dies = on.node.ContainerConfig("dies", {"sh", "-c", "sleep 0.7; exit 23"});
  const std::string dying = on.Running(pod, pod_config, dies);

  CHECK(on.node.StopDaemons() == 0);
  const std::size_t log = on.Log(pod_config, config, "tick").size();
  CHECK(Eventually([&] { return on.Log(pod_config, config, "tick").size() > log; }));
  on.node.StartDaemons();
  on.node.WaitReady();

  CHECK(on.StatusOf(id).state() == cri::ContainerState::CONTAINER_RUNNING);
  CHECK(on.StatusOf(id).started_at() == started);
  CHECK(on.cri.PodStatus(pod)->status().network().ip() == ip);
  CHECK(on.Exited(dying).exit_code() == 23);
  REQUIRE_OK(on.cri.ExecSync(id, {"true"}));
}

}  // namespace
}  // namespace crisp::harness
