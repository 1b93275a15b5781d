// Many pods on the machine's own plugins while plugins fail, hang and die and netd is killed again
// and again: in the end nothing is left. CRISP_CHURN_PODS says how many (of each kind). Needs root.
#include <atomic>
#include <barrier>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <functional>
#include <random>

#include "libs/os/namespaces.h"
#include "libs/os/netlink.h"
#include "libs/sqlite/db.h"
#include "services/netd/tests/daemon_node.h"

namespace crisp::netd {
namespace {

constexpr int kThreads = 6;

int PodCount() {
  const char* asked = std::getenv("CRISP_CHURN_PODS");
  return asked == nullptr ? 60 : std::atoi(asked);
}

/// One of the machine's plugins, but in ADD and DEL it fails before or after the work, hangs, dies
/// or talks nonsense, about once in four times as long as the file "calm" is not there; of a chain,
/// each plugin as seldom as makes it once in four for the whole. What it never does is to say that
/// all is well where it is not: nobody could know then that an address is still taken.
constexpr std::string_view kMoody = R"(
real=/usr/lib/cni/{1}
test -x $real || real=/opt/cni/bin/{1}
case $CNI_COMMAND in ADD|DEL) test -e {0}/calm || moody=yes ;; esac
test "$moody" || exec $real
dice=$(($(od -An -N1 -tu1 /dev/urandom) * {2} + $(od -An -N1 -tu1 /dev/urandom) % {2}))
echo "$CNI_CONTAINERID: $CNI_COMMAND of {1}, mood $dice" >> {0}/moods
if [ $dice -lt 16 ]; then echo '{{"msg": "early"}}'; exit 1; fi
out=$($real)
code=$?
echo "$CNI_CONTAINERID: $CNI_COMMAND of {1} came to $code" >> {0}/moods
if [ $dice -lt 36 ]; then echo '{{"msg": "late"}}'; exit 1; fi
if [ $dice -lt 44 ]; then kill -9 $$; fi
if [ $dice -lt 52 ]; then echo nonsense; exit $code; fi
if [ $dice -lt 56 ]; then setsid sleep 100; fi
echo "$out"
exit $code
)";

/// A network of CNI 1.1 all by itself: an address is a directory with the pod's id. Its GC takes
/// its time between reading the list of the living and freeing the rest.
constexpr std::string_view kCollected = R"(
case $CNI_COMMAND in
VERSION) exec echo '{{"cniVersion": "1.1.0", "supportedVersions": ["1.1.0"]}}' ;;
STATUS) exit 0 ;;
GC)
  echo x >> {0}/collected
  cat > {0}/living.$$
  for pod in $(ls {0}/ipam/churn); do
    grep -q ${{pod#10.}} {0}/living.$$ && continue
    sleep 0.05
    rmdir {0}/ipam/churn/$pod
  done
  rm {0}/living.$$
  exit 0 ;;
esac
dice=$(od -An -N1 -tu1 /dev/urandom)
test -e {0}/calm && dice=255
if [ $dice -lt 16 ]; then echo '{{"msg": "early"}}'; exit 1; fi
case $CNI_COMMAND in
ADD) mkdir -p {0}/ipam/churn/10.$CNI_CONTAINERID ;;
DEL) rmdir {0}/ipam/churn/10.$CNI_CONTAINERID 2> /dev/null ;;
esac
if [ $dice -lt 36 ]; then echo '{{"msg": "late"}}'; exit 1; fi
if [ $dice -lt 44 ]; then kill -9 $$; fi
if [ $dice -lt 48 ]; then setsid sleep 100; fi
echo '{{"cniVersion": "1.1.0", "ips": [{{"address": "10.232.0.7/16"}}]}}'
)";

std::string Run(std::vector<std::string> argv) {
  const std::string program = argv.front();
  argv.erase(argv.begin());
  const auto out = process::Run(
      Call(), {.program = program, .args = std::move(argv), .env = process::PlainEnvironment()});
  return out.ok() ? out->out : out.status().ToString();
}

// Different at the front, as real ids are: locks go by that.
std::string IdOf(int number) { return fmt::format("{:06x}{:058x}", 0xabc000 + number, 0); }

/// Plugins that still run.
std::string Children(const Node& node) {
  std::string children;
  for (const std::string& pid : os::ListDir("/proc").value_or({})) {
    const std::string environment =
        os::ReadFile("/proc/" + pid + "/environ").value_or(std::string());
    if (environment.find("CNI_COMMAND=") == std::string::npos) continue;
    if (environment.find(node.root().path()) != std::string::npos)
      children += "plugin " + pid + "\n";
  }
  return children;
}

std::string Records(const Node& node) {
  auto db = sqlite::Db::Open(node.root() / "s/netd/netd.db");
  REQUIRE(db.ok());
  auto count = db->Prepare("SELECT count(*) FROM attachments");
  REQUIRE(count.ok());
  REQUIRE(count->Step().value_or(false));
  return count->Int(0) == 0 ? "" : fmt::format("{} records\n", count->Int(0));
}

/// What pods have left, in the calling thread's network namespace and on the node's disk.
std::string Leftovers(const Node& node) {
  std::string left;
  for (const std::string& name : os::ListDir(node.root() / "ipam/churn").value_or({})) {
    const bool is_address = name.starts_with("10.") || name.starts_with("fd00");
    // Whose it is stands in it, or in its name.
    const std::string whose = os::ReadFile(node.root() / "ipam/churn/" + name).value_or("");
    if (is_address) left += fmt::format("address {} {}\n", name, whose);
  }
  for (const char* dir : {"r/netd/netns", "cache/results"}) {
    for (const std::string& name : os::ListDir(node.root() / dir).value_or({})) {
      left += fmt::format("{}/{}\n", dir, name);
    }
  }
  const std::string links = Run({"/sbin/ip", "-o", "link"});
  for (const char* kind : {"veth", "ifb", "bwp", "macvlan"}) {
    if (links.find(kind) != std::string::npos) left += links;
  }
  const std::string rules = Run({"/usr/sbin/nft", "list", "ruleset"});
  for (const char* mark : {"10.232.", "fd00:232:", "CNI-DN-", "crisp_hostports"}) {
    if (rules.find(mark) != std::string::npos) left += rules;
  }
  // Its empty table is portmap's own, and so is that it leaves this on.
  const std::string routed =
      os::ReadFile("/proc/sys/net/ipv4/conf/crc0/route_localnet").value_or("0\n");
  if (routed != "0\n" && rules.find("CNI-") == std::string::npos) left += "127.0.0.1 is routed\n";
  return left + Records(node) + Children(node);
}

/// What was done to the pods that `left` names.
std::string Story(const Node& node, const std::string& left) {
  std::string story;
  const std::vector<std::string> files = {node.root().Read("moods"), node.root().Read("netd.log")};
  for (int number = 0; number < PodCount(); ++number) {
    if (left.find(IdOf(number)) == std::string::npos) continue;
    for (const std::string& text : files) {
      for (std::size_t at = 0; (at = text.find(IdOf(number), at)) != std::string::npos;) {
        const std::size_t line = text.rfind('\n', at) + 1;
        const std::size_t end = std::min(text.find('\n', at), text.size());
        story += text.substr(line, end - line) + "\n";
        at = end;
      }
    }
  }
  return story;
}

/// False: it was attached, and yet its address was taken from it.
bool OnePod(const Node& node, int number, unsigned seed) {
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
  const bool attached =
      node.Attach(CallContext::Background(patience, "churn"), std::move(request)).ok();
  // Whatever is collected meanwhile: what a living pod has is not garbage.
  const std::string address = node.root() / ("ipam/churn/10." + IdOf(number));
  const bool kept = !attached || !os::Exists(node.root() / "collected") || os::Exists(address);
  for (auto calls = random() % 3; calls > 0; --calls) {
    static_cast<void>(node.Detach(CallContext::Background(3s, "churn"), IdOf(number)).ok());
  }
  return kept;
}

/// What is churned, and when netd is killed: after some pods, or in the middle of a GC.
struct Kind {
  std::string settings;
  std::function<void(const Node&)> set_up;
  int pods = PodCount();
  bool by_garbage = false;
};

void Churn(Node& node, const Kind& kind) {
  std::atomic<int> next = 0;
  std::atomic<int> working = kThreads;
  std::atomic<int> robbed = 0;
  const int count = kind.pods;
  std::vector<std::string> all;
  for (int i = 0; i < count; ++i) all.push_back(IdOf(i));
  std::vector<std::jthread> threads;
  std::barrier breath(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, count] {
      int done = 0;
      for (int number = next++; number < count; number = next++) {
        if (!OnePod(node, number, static_cast<unsigned>(number) + 1)) ++robbed;
        // A GC begins where no pod comes or goes.
        if (!kind.by_garbage || ++done % 5 != 0) continue;
        breath.arrive_and_wait();
        std::this_thread::sleep_for(50ms);
      }
      breath.arrive_and_drop();
      --working;
    });
  }
  int kills = 0;
  std::minstd_rand random(7);
  while (working > 0) {
    static_cast<void>(node.Reconcile(all));  // from now on garbage is collected
    // It lives for a while: the pods' own pace is the clock.
    const int until = next + 5 + static_cast<int>(random() % 10);
    const std::size_t collected = node.root().Read("collected").size();
    const auto is_over = [&] {
      return kind.by_garbage ? node.root().Read("collected").size() > collected : next >= until;
    };
    while (working > 0 && !is_over()) std::this_thread::yield();
    CHECK(node.Kill(SIGKILL) == 137);
    node.Start();
    ++kills;
  }
  threads.clear();
  CHECK(kills >= 2);
  CHECK(robbed == 0);
  node.root().Write("calm", "");
  // What is owed is due at once after a start: not when its pauses have grown.
  CHECK(node.Kill(SIGKILL) == 137);
  node.Start();
  std::string left = "?";
  std::size_t least = std::string::npos;
  auto end = std::chrono::steady_clock::now() + 60s;
  while (!left.empty() && std::chrono::steady_clock::now() < end) {
    static_cast<void>(node.Reconcile({}));
    left = Leftovers(node);
    // As long as it becomes less: many pods' DELs take their time on a busy machine.
    if (left.size() >= least) continue;
    least = left.size();
    end = std::chrono::steady_clock::now() + 60s;
  }
  CHECK(left.empty());
  if (!left.empty()) WARN(left + Story(node, left));
}

void ChurnAll(const Kind& kind) {
  const testing::TestRoot root;
  auto pins = os::NamespacePin::Create({{os::NamespaceKind::kNet, root / "host"}},
                                       [] { return os::SetLoopbackUp(); });
  REQUIRE(pins.ok());
  // netd, started from inside, and what it starts are in that namespace too.
  const auto inside = [&kind] {
    Node node("  attach_timeout_seconds: 3\n  detach_timeout_seconds: 3\n" + kind.settings,
              {"/usr/lib/cni", "/opt/cni/bin"});
    kind.set_up(node);
    Churn(node, kind);
    return Status::Ok();
  };
  CHECK(os::RunInNamespace(root / "host", inside).ok());
}

/// The machine's plugins of these types, all with moods; the network is `plugins`.
void Moody(const Node& node, const std::vector<std::string>& types, const std::string& plugins) {
  for (const std::string& type : types) {
    node.root().Script("bin/" + type, fmt::format(kMoody, node.root().path(), type, types.size()));
  }
  node.root().Write("conf/10-churn.conflist", fmt::format(R"({{"cniVersion": "1.0.0",
      "name": "churn", "plugins": [{}]}})",
                                                          plugins));
}

/// A plugin of the type that takes addresses of both families.
std::string Dual(const Node& node, const std::string& type, const std::string& more = "") {
  return fmt::format(R"({{"type": "{}"{}, "ipam": {{"type": "host-local", "dataDir": "{}",
      "ranges": [[{{"subnet": "10.232.0.0/16"}}], [{{"subnet": "fd00:232::/64"}}]]}}}})",
                     type, more, node.root() / "ipam");
}

std::string Bridge(const Node& node) {
  return Dual(node, "bridge", R"(, "bridge": "crc0", "isGateway": true)");
}

constexpr const char* kPortmap = R"(, {"type": "portmap", "capabilities": {"portMappings": true}})";

TEST_CASE("After pods with random failures and kills nothing is left: portmap") {
  ChurnAll({.settings = "", .set_up = [](const Node& node) {
              Moody(node, {"bridge", "host-local", "portmap"}, Bridge(node) + kPortmap);
            }});
}

TEST_CASE("After pods with random failures and kills nothing is left: builtin host ports") {
  ChurnAll({.settings = "  hostports: builtin\n", .set_up = [](const Node& node) {
              Moody(node, {"bridge", "host-local"}, Bridge(node));
            }});
}

TEST_CASE("After pods with random failures and kills nothing is left: a chain of five") {
  const auto set_up = [](const Node& node) {
    Moody(node, {"bridge", "host-local", "portmap", "firewall", "tuning", "bandwidth"},
          Bridge(node) + kPortmap + R"(, {"type": "firewall"},
            {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400},
            {"type": "bandwidth", "ingressRate": 100000000, "ingressBurst": 8000000,
             "egressRate": 100000000, "egressBurst": 8000000})");
  };
  ChurnAll({.settings = "", .set_up = set_up});
}

TEST_CASE("After pods with random failures and kills nothing is left: point-to-point links") {
  ChurnAll({.settings = "", .set_up = [](const Node& node) {
              Moody(node, {"ptp", "host-local", "portmap"}, Dual(node, "ptp") + kPortmap);
            }});
}

TEST_CASE("After pods with random failures and kills nothing is left: macvlan and loopback") {
  const auto set_up = [](const Node& node) {
    Run({"/sbin/ip", "link", "add", "wire", "type", "bridge"});  // not every kernel has dummies
    Run({"/sbin/ip", "link", "set", "wire", "up"});
    Moody(node, {"macvlan", "host-local", "loopback"},
          Dual(node, "macvlan", R"(, "master": "wire")") + R"(, {"type": "loopback"})");
  };
  ChurnAll({.settings = "", .set_up = set_up});
}

TEST_CASE("After pods with random failures and kills nothing is left: garbage is collected") {
  const auto set_up = [](const Node& node) {
    node.root().Script("bin/collected", fmt::format(kCollected, node.root().path()));
    node.root().Write("conf/10-churn.conf",
                      R"({"cniVersion": "1.1.0", "name": "churn", "type": "collected"})");
  };
  constexpr int kTimes = 6;  // these pods are cheap, and a GC comes once a second
  ChurnAll({.settings = "  gc_interval_seconds: 1\n",
            .set_up = set_up,
            .pods = kTimes * PodCount(),
            .by_garbage = true});
}

}  // namespace
}  // namespace crisp::netd
