#include "integration/crash/fire.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

// kill -9 of rund in the middle of what it does alone: pods with processes and namespaces of their
// own, ends, commands and updates.

using cri::NamespaceMode;
using std::chrono::milliseconds;

std::string Ready(Node& node, const cri::PodSandboxConfig& config) {
  const auto ran = Retried([&] { return node.cri().RunPod(config); });
  INFO(Describe(ran.status));
  REQUIRE(ran.ok());
  node.Remember(ran->pod_sandbox_id());
  return ran->pod_sandbox_id();
}

std::string Running(Node& node, const std::string& pod, const cri::PodSandboxConfig& pod_config,
                    const cri::ContainerConfig& config) {
  const auto created = Retried([&] { return node.cri().Create(pod, config, pod_config); });
  INFO(Describe(created.status));
  REQUIRE(created.ok());
  const std::string id = created->container_id();
  node.Remember(id);
  const auto started = Retried([&] { return node.cri().Start(id); });
  INFO(Describe(started.status));
  REQUIRE(started.ok());
  return id;
}

cri::ContainerConfig Deaf(Node& node, const std::string& name) {
  return node.ContainerConfig(
      name, {"sh", "-c", "trap '' TERM; echo line of " + name + "; while :; do sleep 1; done"});
}

std::string LogOf(const cri::PodSandboxConfig& pod, const cri::ContainerConfig& config) {
  return os::ReadFile(Node::LogPath(pod, config)).value_or("");
}

/// What the updates below set: so many shares, and as many MiB of memory.
bool InForce(const std::string& cgroup, int number) {
  return os::ReadFile("/sys/fs/cgroup/cpu" + cgroup + "/cpu.shares").value_or("") ==
             std::to_string(number) + "\n" &&
         os::ReadFile("/sys/fs/cgroup/memory" + cgroup + "/memory.limit_in_bytes").value_or("") ==
             std::to_string(std::int64_t{number} << 20U) + "\n";
}

/// Each `update(number)` that is cut short has happened or not, as `holds(number)` sees it, and the
/// next attempt comes through.
template <typename Update, typename Holds>
void UpdatesUnderFire(Node& node, const Update& update, const Holds& holds) {
  const auto typical = Took([&] { return update(600); });
  int now = 600;
  for (int round = 0; round < Rounds(); ++round) {
    INFO("round " << round);
    const int next = now + 1;
    UnderFire(
        node, "rund", [&] { return update(next); }, typical, Part(round));
    CHECK(Eventually([&] { return holds(now) || holds(next); }));
    CHECK(Retried([&] { return update(next); }).ok());
    CHECK(holds(next));
    now = next;
  }
}

/// A shared PID namespace, or a user namespace.
cri::PodSandboxConfig PodWith(Node& node, bool users) {
  auto config = node.PodConfig(users ? "users" : "pids");
  auto* namespaces =
      config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  if (!users) {
    namespaces->set_pid(NamespaceMode::POD);
    return config;
  }
  auto* mapped = namespaces->mutable_userns_options();
  mapped->set_mode(NamespaceMode::POD);
  for (auto* ids : {mapped->add_uids(), mapped->add_gids()}) {
    ids->set_host_id(200'000);
    ids->set_length(65'536);
  }
  return config;
}

TEST_CASE("kill -9 of rund in the middle of RunPodSandbox, with shared processes and with users") {
  Node& node = TheNode();
  {
    const Witness witness(node);
    for (const bool users : {false, true}) {
      const auto typical = Took([&] { return node.cri().RunPod(PodWith(node, users)); });
      for (int round = 0; round < Rounds(); ++round) {
        INFO((users ? "users" : "pids") << ", round " << round);
        const auto config = PodWith(node, users);
        const auto call = [&] { return node.cri().RunPod(config); };
        const auto first = UnderFire(node, "rund", call, typical, Part(round));
        const std::string pod = Ready(node, config);
        if (first.ok()) CHECK(first->pod_sandbox_id() == pod);
        auto container = node.ContainerConfig("c", {"sleep", "1000"});
        *container.mutable_linux()->mutable_security_context()->mutable_namespace_options() =
            config.linux().security_context().namespace_options();
        Running(node, pod, config, container);
        CHECK(Retried([&] { return node.cri().RemovePod(pod); }).ok());
      }
    }
    witness.CheckAlive();
  }
  CheckNothingLeft(node);
}

TEST_CASE("kill -9 of rund in the middle of StopPodSandbox") {
  Node& node = TheNode();
  {
    const Witness witness(node);
    const auto sample_config = node.PodConfig("typical");
    const std::string sample = Ready(node, sample_config);
    Running(node, sample, sample_config, Deaf(node, "c"));
    const auto typical = Took([&] { return node.cri().StopPod(sample); });
    for (int round = 0; round < Rounds(); ++round) {
      INFO("round " << round);
      const auto config = node.PodConfig("fire");
      const std::string pod = Ready(node, config);
      const std::string id = Running(node, pod, config, Deaf(node, "c"));
      const auto call = [&] { return node.cri().StopPod(pod); };
      UnderFire(node, "rund", call, typical, Part(round));
      const auto retry = Retried(call);
      INFO(Describe(retry.status));
      REQUIRE(retry.ok());
      CHECK(node.cri().PodStatus(pod)->status().state() == cri::PodSandboxState::SANDBOX_NOTREADY);
      const auto status = node.cri().ContainerStatus(id)->status();
      CHECK(status.state() == cri::ContainerState::CONTAINER_EXITED);
      CHECK(status.exit_code() == 137);
      CHECK(status.reason() == "Error");
    }
    witness.CheckAlive();
  }
  CheckNothingLeft(node);
}

TEST_CASE("kill -9 of rund in the middle of RemoveContainer: its log stays") {
  Node& node = TheNode();
  {
    const Witness witness(node);
    const auto running = [&](const cri::ContainerConfig& config) {
      const std::string id = Running(node, witness.pod, witness.pod_config, config);
      REQUIRE(Eventually(
          [&] { return LogOf(witness.pod_config, config).find("line of") != std::string::npos; }));
      return id;
    };
    const std::string sample = running(Deaf(node, "typical"));
    const auto typical = Took([&] { return node.cri().Remove(sample); });
    for (int round = 0; round < Rounds(); ++round) {
      INFO("round " << round);
      const std::string name = "fire" + std::to_string(round);
      const auto config = Deaf(node, name);
      const std::string id = running(config);
      const auto call = [&] { return node.cri().Remove(id); };
      UnderFire(node, "rund", call, typical, Part(round));
      const auto retry = Retried(call);
      INFO(Describe(retry.status));
      REQUIRE(retry.ok());
      CHECK(node.cri().ContainerStatus(id).code() == grpc::StatusCode::NOT_FOUND);
      CHECK(LogOf(witness.pod_config, config).find("line of " + name) != std::string::npos);
    }
    witness.CheckAlive();
  }
  CheckNothingLeft(node);
}

TEST_CASE("kill -9 of rund in the middle of ExecSync: the command goes as well") {
  Node& node = TheNode();
  {
    const Witness witness(node);
    for (int round = 0; round < Rounds(); ++round) {
      INFO("round " << round);
      const std::string mark = "sleep 77" + std::to_string(round);
      const auto first = UnderFire(
          node, "rund",
          [&] {
            return node.cri().ExecSync(witness.container, {"sh", "-c", mark + " & " + mark}, 20);
          },
          milliseconds(300), Part(round));
      CHECK_FALSE(first.ok());
      CHECK(Eventually([&] { return node.Inside({"pgrep", "-f", "^" + mark}).code == 1; }));
    }
    witness.CheckAlive();
  }
  CheckNothingLeft(node);
}

TEST_CASE("kill -9 of rund in the middle of UpdateContainerResources: all of it or nothing") {
  Node& node = TheNode();
  {
    const Witness witness(node);
    auto config = node.ContainerConfig("fire", {"sleep", "1000"});
    config.mutable_linux()->mutable_resources()->set_cpu_shares(600);
    config.mutable_linux()->mutable_resources()->set_memory_limit_in_bytes(600 << 20);
    const std::string id = Running(node, witness.pod, witness.pod_config, config);
    const std::string cgroup = witness.pod_config.linux().cgroup_parent() + "/crisp-" + id;
    const auto update = [&](int number) {
      cri::LinuxContainerResources resources;
      resources.set_cpu_shares(number);
      resources.set_memory_limit_in_bytes(std::int64_t{number} << 20U);
      return node.cri().UpdateResources(id, resources);
    };
    const auto told = [&](int number) {
      const auto status = Retried([&] { return node.cri().ContainerStatus(id); });
      return status->status().resources().linux().cpu_shares() == number;
    };
    UpdatesUnderFire(node, update,
                     [&](int number) { return InForce(cgroup, number) && told(number); });
    witness.CheckAlive();
  }
  CheckNothingLeft(node);
}

TEST_CASE("kill -9 of rund in the middle of UpdatePodSandboxResources: all of it or nothing") {
  Node& node = TheNode();
  {
    const Witness witness(node);
    auto config = node.PodConfig("fire");
    const std::string cgroup = config.linux().cgroup_parent() + "/own";
    config.mutable_linux()->set_cgroup_parent(cgroup);
    config.mutable_linux()->mutable_resources()->set_cpu_shares(500);
    config.mutable_linux()->mutable_resources()->set_memory_limit_in_bytes(500 << 20);
    const std::string pod = Ready(node, config);
    const auto update = [&](int number) {
      cri::UpdatePodSandboxResourcesRequest request;
      request.set_pod_sandbox_id(pod);
      request.mutable_resources()->set_cpu_shares(number);
      request.mutable_resources()->set_memory_limit_in_bytes(std::int64_t{number} << 20U);
      return node.cri().Call(&cri::RuntimeService::StubInterface::UpdatePodSandboxResources,
                             request);
    };
    UpdatesUnderFire(node, update, [&](int number) { return InForce(cgroup, number); });
    witness.CheckAlive();
  }
  CheckNothingLeft(node);
}

}  // namespace
}  // namespace crisp::harness
