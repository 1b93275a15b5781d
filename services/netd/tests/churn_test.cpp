// Many pods on the machine's own plugins while plugins fail, hang and die and netd is killed again
// and again: in the end nothing is left. CRISP_CHURN_PODS says how many (of each kind). Needs root.
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <random>

#include "libs/os/namespaces.h"
#include "libs/os/netlink.h"
#include "services/netd/tests/daemon_node.h"

namespace crisp::netd {
namespace {

constexpr int kThreads = 6;

int PodCount() {
  const char* asked = std::getenv("CRISP_CHURN_PODS");
  return asked == nullptr ? 60 : std::atoi(asked);
}

/// The bridge plugin, but it fails before or after the work, hangs, dies or talks nonsense, about
/// once in four times, until the file "calm" is there.
constexpr std::string_view kMoody = R"(
real=/usr/lib/cni/bridge
test -x $real || real=/opt/cni/bin/bridge
case $CNI_COMMAND in ADD|DEL) test -e {0}/calm || moody=yes ;; esac
test "$moody" || exec $real
dice=$(od -An -N1 -tu1 /dev/urandom)
if [ $dice -lt 16 ]; then echo '{{"msg": "early"}}'; exit 1; fi
out=$($real)
code=$?
if [ $dice -lt 36 ]; then echo '{{"msg": "late"}}'; exit 1; fi
if [ $dice -lt 44 ]; then kill -9 $$; fi
if [ $dice -lt 52 ]; then echo nonsense; exit 0; fi
if [ $dice -lt 56 ]; then setsid sleep 100; fi
echo "$out"
exit $code
)";

std::string Run(std::vector<std::string> argv) {
  const std::string program = argv.front();
  argv.erase(argv.begin());
  const auto out = process::Run(
      Call(), {.program = program, .args = std::move(argv), .env = process::PlainEnvironment()});
  return out.ok() ? out->out : out.status().ToString();
}

std::string IdOf(int number) { return fmt::format("{:064x}", 0xabc000 + number); }

/// What pods have left, in the calling thread's network namespace and on the node's disk.
std::string Leftovers(const Node& node) {
  std::string left;
  for (const std::string& name : os::ListDir(node.root() / "ipam/churn").value_or({})) {
    if (name.starts_with("10.")) left += "address " + name + "\n";
  }
  for (const char* dir : {"r/netd/netns", "cache/results"}) {
    for (const std::string& name : os::ListDir(node.root() / dir).value_or({})) {
      left += fmt::format("{}/{}\n", dir, name);
    }
  }
  const std::string links = Run({"/sbin/ip", "-o", "link"});
  if (links.find("veth") != std::string::npos) left += links;
  const std::string rules = Run({"/usr/sbin/nft", "list", "ruleset"});
  if (rules.find("10.232.") != std::string::npos) left += rules;
  if (rules.find("CNI-DN-") != std::string::npos) left += rules;
  return left;
}

void OnePod(const Node& node, int number, unsigned seed) {
  std::minstd_rand random(seed);
  v1::AttachRequest request;
  request.set_pod_id(IdOf(number));
  request.mutable_config()->mutable_metadata()->set_name("web");
  if (number % 3 == 0) {
    auto* port = request.mutable_config()->add_port_mappings();
    port->set_container_port(80);
    port->set_host_port(20000 + number);
  }
  // Some callers leave early, some never come back to detach.
  const auto patience = random() % 4 == 0 ? 30ms : 5s;
  static_cast<void>(
      node.Attach(CallContext::Background(patience, "churn"), std::move(request)).ok());
  for (auto calls = random() % 3; calls > 0; --calls) {
    static_cast<void>(node.Detach(CallContext::Background(3s, "churn"), IdOf(number)).ok());
  }
}

void Churn(Node& node) {
  std::atomic<int> next = 0;
  std::atomic<int> working = kThreads;
  const int count = PodCount();
  std::vector<std::jthread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&node, &next, &working, count] {
      for (int number = next++; number < count; number = next++) {
        OnePod(node, number, static_cast<unsigned>(number) + 1);
      }
      --working;
    });
  }
  int kills = 0;
  std::minstd_rand random(7);
  while (working > 0) {
    // It lives for a while: the pods' own pace is the clock.
    const int until = next + 5 + static_cast<int>(random() % 10);
    while (working > 0 && next < until) std::this_thread::yield();
    CHECK(node.Kill(SIGKILL) == 137);
    node.Start();
    ++kills;
  }
  threads.clear();
  CHECK(kills >= 2);
  node.root().Write("calm", "");
  std::string left = "?";
  const auto end = std::chrono::steady_clock::now() + 60s;
  while (!left.empty() && std::chrono::steady_clock::now() < end) {
    static_cast<void>(node.Reconcile({}));
    left = Leftovers(node);
  }
  CHECK(left.empty());
  if (!left.empty()) WARN(left);
}

void ChurnWith(const std::string& more, const std::string& plugins) {
  const testing::TestRoot root;
  auto pins = os::NamespacePin::Create({{os::NamespaceKind::kNet, root / "host"}},
                                       [] { return os::SetLoopbackUp(); });
  REQUIRE(pins.ok());
  // netd, started from inside, and what it starts are in that namespace too.
  const auto inside = [&more, &plugins] {
    Node node("  attach_timeout_seconds: 1\n  detach_timeout_seconds: 2\n" + more,
              {"/usr/lib/cni", "/opt/cni/bin"});
    node.root().Script("bin/bridge", fmt::format(kMoody, node.root().path()));
    node.root().Write("conf/10-churn.conflist", fmt::format(R"({{"cniVersion": "1.0.0",
        "name": "churn", "plugins": [{{"type": "bridge", "bridge": "crc0", "isGateway": true,
        "ipam": {{"type": "host-local", "dataDir": "{}", "ranges":
        [[{{"subnet": "10.232.0.0/16"}}]]}}}}{}]}})",
                                                            node.root() / "ipam", plugins));
    Churn(node);
    return Status::Ok();
  };
  CHECK(os::RunInNamespace(root / "host", inside).ok());
}

TEST_CASE("After pods with random failures and kills nothing is left: portmap") {
  ChurnWith("", R"(, {"type": "portmap", "capabilities": {"portMappings": true}})");
}

TEST_CASE("After pods with random failures and kills nothing is left: builtin host ports") {
  ChurnWith("  hostports: builtin\n", "");
}

}  // namespace
}  // namespace crisp::netd
