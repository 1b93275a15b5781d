#include <algorithm>
#include <nlohmann/json.hpp>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"
#include "libs/testing/test_root.h"

namespace crisp::harness {
namespace {

using Json = nlohmann::json;
using std::chrono::seconds;

/// A node with a dual-stack network, builtin host ports, a bridge plugin that notes its calls, and
/// sysctls that the node and the network want otherwise.
struct DualNode {
  DualNode() : node({.yaml = "", .without_unified = false, .start = false}) {
    const char* real = os::Exists("/opt/cni/bin/bridge") ? "/opt/cni/bin" : "/usr/lib/cni";
    root.Script("bin/bridge",
                "test -z \"$CNI_CONTAINERID\" || echo \"$CNI_COMMAND $CNI_CONTAINERID\" >> " +
                    (root / "calls") + "\nexec " + real + "/bridge");
    Write("crisp.yaml.d/network.yaml", "netd:\n  bin_dirs: [" + (root / "bin") + ", " + real +
                                           "]\n  hostports: builtin\n  status_grace_seconds: 0\n"
                                           "rund:\n  default_sysctls: [net.core.somaxconn=321, "
                                           "net.ipv4.ip_unprivileged_port_start=77]\n");
    Write("cni/05-dual.conflist", R"({"cniVersion": "1.0.0", "name": "dual", "plugins": [
      {"type": "bridge", "bridge": "crd0", "isGateway": true, "hairpinMode": true,
       "ipam": {"type": "host-local", "dataDir": ")" +
                                      node.dir() + R"(/state/host-local",
         "ranges": [[{"subnet": "10.233.0.0/24"}], [{"subnet": "fd00:233::/64"}]],
         "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
      {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}]})");
    node.StartDaemons();
    node.WaitReady();
  }
  DualNode(const DualNode&) = delete;
  DualNode& operator=(const DualNode&) = delete;
  ~DualNode() {
    const std::vector<std::string> left = node.CleanUp();
    for (const std::string& line : left) UNSCOPED_INFO(line);
    CHECK(left.empty());
  }
  void Write(const std::string& name, const std::string& text) const {
    REQUIRE(os::WriteFile(node.dir() + "/" + name, text).ok());
  }
  std::string Pod(const cri::PodSandboxConfig& config) {
    const auto answer = node.cri().RunPod(config);
    REQUIRE_OK(answer);
    node.Remember(answer->pod_sandbox_id());
    return answer->pod_sandbox_id();
  }
  std::ptrdiff_t Leases() const {
    const auto names = os::ListDir(node.dir() + "/state/host-local/dual").value_or({});
    return std::count_if(names.begin(), names.end(), [](const std::string& name) {
      return name.starts_with("10.") || name.starts_with("fd00");
    });
  }
  cri::RuntimeCondition NetworkReady() const {
    const auto status = node.cri().Status();
    REQUIRE_OK(status);
    for (const auto& condition : status->status().conditions()) {
      if (condition.type() == "NetworkReady") return condition;
    }
    return {};
  }

  testing::TestRoot root;
  Node node;
};

TEST_CASE("A dual-stack pod with builtin host ports: both addresses, its port, one DEL") {
  DualNode test;
  const Cri& cri = test.node.cri();
  auto config = test.node.PodConfig("dual");
  auto* mapping = config.add_port_mappings();
  mapping->set_container_port(8080);
  mapping->set_host_port(18090);
  const std::string pod = test.Pod(config);
  const auto status = cri.PodStatus(pod);
  REQUIRE_OK(status);
  CHECK(status->status().network().ip().starts_with("10.233.0."));
  REQUIRE(status->status().network().additional_ips_size() == 1);
  CHECK(status->status().network().additional_ips(0).ip().starts_with("fd00:233::"));
  CHECK(test.Leases() == 2);

  test.node.Busybox();
  const auto created =
      cri.Create(pod,
                 test.node.ContainerConfig("httpd", {"sh", "-c",
                                                     "echo mapped > /tmp/page; exec httpd -f -p "
                                                     "8080 -h /tmp"}),
                 config);
  REQUIRE_OK(created);
  test.node.Remember(created->container_id());
  REQUIRE_OK(cri.Start(created->container_id()));
  for (const char* host : {"10.233.0.1", "127.0.0.1", "[fd00:233::1]"}) {
    Ran got;
    Eventually([&] {
      got = test.node.Inside(
          {"busybox", "wget", "-q", "-O", "-", std::string("http://") + host + ":18090/page"});
      return got.code == 0;
    });
    INFO(host << " " << got.err);
    CHECK(got.out == "mapped\n");
  }

  // The network's own plugin has the last word.
  const auto sysctls = cri.ExecSync(
      created->container_id(),
      {"cat", "/proc/sys/net/core/somaxconn", "/proc/sys/net/ipv4/ip_unprivileged_port_start"});
  REQUIRE_OK(sysctls);
  CHECK(sysctls->stdout() == "500\n77\n");

  for (int i = 0; i < 3; ++i) REQUIRE_OK(cri.StopPod(pod));
  CHECK(test.Leases() == 0);
  const std::string before = test.root.Read("calls");
  CHECK(before == "ADD " + pod + "\nDEL " + pod + "\n");
  CHECK(test.node.Inside({"nft", "list", "ruleset"}).out.empty());

  // A pod of the host's network has none of its own to be made.
  REQUIRE_OK(cri.StopPod(test.Pod(test.node.PodConfig("host", true))));
  CHECK(test.root.Read("calls") == before);
}

TEST_CASE("NetworkReady says what is wrong with the network in its own words") {
  const DualNode test;
  CHECK(test.NetworkReady().status());
  const std::string file = test.node.dir() + "/cni/05-dual.conflist";
  const std::string good = os::ReadFile(file).value();
  test.Write("cni/05-dual.conflist",
             R"({"cniVersion": "1.0.0", "name": "dual", "plugins": [{"type": "absent"}]})");
  cri::RuntimeCondition condition;
  Eventually(
      [&] {
        condition = test.NetworkReady();
        return !condition.status();
      },
      seconds(30));
  CHECK_FALSE(condition.status());
  CHECK(condition.reason() == "NetworkPluginNotReady");
  CHECK(condition.message().find("network plugin 'absent' is not in") != std::string::npos);
  test.Write("cni/05-dual.conflist", good);
  test.node.WaitReady();
}

TEST_CASE("crispctl network check has the plugins look at a pod's network") {
  DualNode test;
  const auto check = [&test](const std::string& pod) {
    return test.node.Inside({CRISP_BUILD_DIR "/bin/crispctl", "--socket", test.node.socket(),
                             "--output", "json", "network", "check", pod});
  };
  const std::string pod = test.Pod(test.node.PodConfig("checked"));
  Ran ran = check(pod);
  INFO(ran.out << ran.err);
  CHECK(ran.code == 0);
  CHECK(Json::parse(ran.out)[0]["network"] == "ok");
  CHECK(test.root.Read("calls").find("CHECK " + pod) != std::string::npos);

  const std::string netns = "--net=" + test.node.dir() + "/run/netd/netns/" + pod;
  REQUIRE(test.node.Inside({"nsenter", netns, "ip", "addr", "flush", "dev", "eth0"}).code == 0);
  ran = check(pod);
  CHECK(ran.code == 1);
  const Json damaged = Json::parse(ran.out)[0];
  INFO(damaged.dump());
  CHECK(damaged["network"] == "failed");
  CHECK(std::string(damaged["message"]).find("plugin bridge: CHECK failed") != std::string::npos);

  const std::string host = test.Pod(test.node.PodConfig("host", true));
  ran = check(host);
  CHECK(ran.code == 0);
  CHECK(Json::parse(ran.out)[0]["network"] == "none");
  CHECK(check("nosuch").code == 1);
  for (const std::string& one : {pod, host}) REQUIRE_OK(test.node.cri().StopPod(one));
}

}  // namespace
}  // namespace crisp::harness
