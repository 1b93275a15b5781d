// Pods with user namespaces without netd: the test makes the network namespace itself.
#include <fcntl.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <csignal>

#include "libs/os/files.h"
#include "libs/os/mount.h"
#include "libs/os/namespaces.h"
#include "libs/process/command.h"
#include "services/rund/core/node.h"
#include "services/rund/runtime/userns.h"
#include "services/rund/tests/test_node.h"

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT
namespace cri = runtime::v1;

namespace {

constexpr std::uint32_t kHost = 300'000;

/// A network namespace that the user namespace owns, pinned at `path`.
os::NamespacePin NetIn(const std::string& userns, const std::string& path) {
  process::Command command;
  command.program = "/usr/bin/nsenter";
  command.args = {"--user=" + userns, "unshare", "-n", "sleep", "1000"};
  command.env = process::PlainEnvironment();
  auto child = process::Spawn(command);
  REQUIRE(child.ok());
  const std::string comm = fmt::format("/proc/{}/comm", child->pid());
  TestNode::Await([&] { return os::ReadFile(comm).value_or("") == "sleep\n"; });
  auto pins = os::NamespacePin::OfProcess(child->pid(), {{os::NamespaceKind::kNet, path}});
  child->pidfd().Signal(SIGKILL).ok();
  REQUIRE(child->Wait(TestNode::Call()).ok());
  REQUIRE(pins.ok());
  return std::move(pins->front());
}

cri::PodSandboxConfig UserPod() {
  cri::PodSandboxConfig config;
  config.mutable_metadata()->set_name("users");
  config.mutable_metadata()->set_namespace_("test");
  config.mutable_metadata()->set_uid("uid");
  config.set_hostname("inside");
  auto* namespaces =
      config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  namespaces->set_pid(cri::CONTAINER);
  auto* users = namespaces->mutable_userns_options();
  for (auto* ids : {users->add_uids(), users->add_gids()}) {
    ids->set_host_id(kHost);
    ids->set_length(65536);
  }
  return config;
}

Result<v1::PreparePodResponse> Prepared(TestNode& node, const std::string& id,
                                        const cri::PodSandboxConfig& config) {
  v1::ReservePodRequest reserve;
  reserve.set_pod_id(id);
  *reserve.mutable_metadata() = config.metadata();
  REQUIRE(node.pods().Reserve(reserve).ok());
  v1::PreparePodRequest prepare;
  prepare.set_pod_id(id);
  *prepare.mutable_config() = config;
  return node.pods().Prepare(TestNode::Call(), prepare);
}

}  // namespace

TEST_CASE("A pod's user namespace is pinned, and its container is root in it alone") {
  TestNode node;
  REQUIRE(node.engine().parts().userns_support.ok());
  auto config = UserPod();
  config.set_log_directory(node.root() / "logs");
  const PodId pod(std::string(64, 'd'));
  const auto prepared = Prepared(node, pod.str(), config);
  INFO(prepared.status().ToString());
  REQUIRE(prepared.ok());
  CHECK(os::IsPinnedNamespace(prepared->userns_path()).value());
  struct stat facts {};
  REQUIRE(stat(node.layout().HostsPath(pod).c_str(), &facts) == 0);
  CHECK(facts.st_uid == kHost);
  // The test's own, where the node does not look for what is left.
  const testing::TestRoot net_root;
  const std::string net_path = net_root / "net";
  const os::NamespacePin net = NetIn(prepared->userns_path(), net_path);
  v1::StartPodRequest start;
  start.set_pod_id(pod.str());
  start.set_netns_path(net_path);
  REQUIRE(node.pods().Start(TestNode::Call(), start).ok());

  const ContainerId id = node.Run(
      pod, {.command = {"sh", "-c",
                        "cat /proc/self/uid_map; echo > /tmp/new && echo wrote; cat /etc/hostname; "
                        "echo x > /etc/hosts && echo hosts; pwd; sleep 1000"},
            .change = [](cri::ContainerConfig& change) { change.set_working_dir("/made/here"); }});
  TestNode::Await([&] { return node.Log().find("/made/here") != std::string::npos; });
  const std::string log = node.Log();
  INFO(log);
  CHECK(log.find(std::to_string(kHost)) != std::string::npos);
  CHECK(log.find("F wrote") != std::string::npos);
  CHECK(log.find("F inside") != std::string::npos);
  // On disk the owners are what they were.
  REQUIRE(stat((node.root() / "rootfs/tmp/new").c_str(), &facts) == 0);
  CHECK(facts.st_uid == 0);
  const std::string proc = fmt::format("/proc/{}", node.state().FindContainer(id)->init().pid());
  REQUIRE(stat(proc.c_str(), &facts) == 0);
  CHECK(facts.st_uid == kHost);
  // Also after a restart of the daemon.
  node.Restart();
  CHECK(node.End(id, std::chrono::seconds(0)).ok());
  REQUIRE(node.pods().Remove(TestNode::Call(), pod).ok());
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("What a probe for user namespaces has left does not stand in the way of the next") {
  TestNode node;
  node.Stop();
  const std::string probe = node.config().layout.run_dir + "/probe";
  REQUIRE(os::MakeDirs(probe + "/lower").ok());
  REQUIRE(os::BindMount(node.config().layout.state_dir, probe + "/lower").ok());
  REQUIRE(os::WriteFile(probe + "/user", "").ok());
  REQUIRE(os::BindMount("/proc/self/ns/user", probe + "/user").ok());
  node.StartEngine();
  INFO(node.engine().parts().userns_support.ToString());
  CHECK(node.engine().parts().userns_support.ok());
  CHECK_FALSE(os::Exists(probe));
}

TEST_CASE("A user namespace that the node or the runtime cannot give is refused, with the reason") {
  TestNode node;
  node.Instead("features", R"(echo '{"linux":{"namespaces":["mount"]}}')");
  node.Restart();
  const auto refused = Prepared(node, std::string(64, 'd'), UserPod());
  CHECK(refused.code() == Code::kInvalidArgument);
  CHECK(refused.status().message().find("userns_options") != std::string::npos);
  CHECK(refused.status().message().find("runc") != std::string::npos);
  CHECK_FALSE(NodeStatusOf(node.engine().parts()).handlers(0).features().user_namespaces());
  node.config().pause = "/no/such/pause";
  node.KillAt("", false);
  node.Restart();
  CHECK_FALSE(node.engine().parts().userns_support.ok());
  REQUIRE(node.pods().Remove(TestNode::Call(), PodId(std::string(64, 'd'))).ok());
  CHECK(IsEmpty(node.Leftovers()));
}
