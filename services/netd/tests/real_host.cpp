#include "services/netd/tests/real_host.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <exception>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "libs/base/try.h"
#include "libs/os/namespaces.h"
#include "libs/os/netlink.h"
#include "libs/process/command.h"

namespace crisp::netd {

RealHost::RealHost(std::string plugins, const std::vector<std::string>& versions)
    : path_(net.root / "host"), plugins_(std::move(plugins)) {
  const std::string dir = net.root / "ipam";
  for (std::size_t at = plugins_.find("$DIR"); at != std::string::npos;
       at = plugins_.find("$DIR")) {
    plugins_.replace(at, 4, dir);
  }
  net.root.Write(
      "conf/10-real.conflist",
      fmt::format(R"({{"cniVersion": "{}", "cniVersions": {}, "name": "real", "plugins": {}}})",
                  versions.front(), nlohmann::json(versions).dump(), plugins_));
  net.config.bin_dirs = {"/opt/cni/bin", "/usr/lib/cni"};
  if (const char* first = std::getenv("CRISP_CNI_BIN_DIR")) {
    net.config.bin_dirs.insert(net.config.bin_dirs.begin(), first);
  }
  net.Restart();
  const auto setup = []() -> Status {
    // What a node has, and addresses that are usable at once.
    for (const char* name : {"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"}) {
      CRISP_TRY(os::WriteSysctl(name, "1"));
    }
    CRISP_TRY(os::WriteSysctl("net.ipv6.conf.default.accept_dad", "0"));
    return os::SetLoopbackUp();
  };
  auto pins = os::NamespacePin::Create({{os::NamespaceKind::kNet, path_}}, setup);
  INFO(pins.status().ToString());
  REQUIRE(pins.ok());
  pins->front().Commit();
}

RealHost::~RealHost() {
  const auto free = [this] { return net.networks->Reconcile(net.Call(), {}).status(); };
  CHECK(os::RunInNamespace(path_, free).ok());
  CHECK(net.store->List().value().empty());
  CHECK(os::UnpinNamespace(path_).ok());
}

void RealHost::Inside(const std::function<void()>& fn) const {
  std::exception_ptr thrown;
  const auto guarded = [&fn, &thrown] {
    try {
      fn();
    } catch (...) {
      thrown = std::current_exception();
    }
    return Status::Ok();
  };
  const Status ran = os::RunInNamespace(path_, guarded);
  if (thrown) std::rethrow_exception(thrown);
  REQUIRE(ran.ok());
}

PodNetwork RealHost::Attach(const PodId& pod, const runtime::v1::PodSandboxConfig& config) {
  auto quick = config;
  (*quick.mutable_linux()->mutable_sysctls())["net.ipv6.conf.default.accept_dad"] = "0";
  auto network = net.networks->Attach(net.Call(), pod, quick);
  INFO(network.status().ToString());
  REQUIRE(network.ok());
  return *std::move(network);
}

void RealHost::Detach(const PodId& pod) {
  const Status detached = net.networks->Detach(net.Call(), pod);
  INFO(detached.ToString());
  CHECK(detached.ok());
}

std::string RealHost::Outside() {
  const std::string path = net.root / "outside";
  auto pins = os::NamespacePin::Create({{os::NamespaceKind::kNet, path}});
  REQUIRE(pins.ok());
  outside_ = *std::move(pins);
  Run({"/sbin/ip", "link", "add", "out0", "type", "veth", "peer", "name", "far0"});
  Run({"/sbin/ip", "link", "set", "far0", "netns", path});
  for (const auto& [netns, link, end] :
       {std::tuple(std::string(), "out0", 1), std::tuple(path, "far0", 2)}) {
    Run({"/sbin/ip", "link", "set", link, "up"}, netns);
    Run({"/sbin/ip", "addr", "add", fmt::format("10.231.90.{}/24", end), "dev", link}, netns);
    Run({"/sbin/ip", "addr", "add", fmt::format("fd00:231:90::{}/64", end), "dev", link, "nodad"},
        netns);
  }
  Run({"/sbin/ip", "route", "add", "default", "via", "10.231.90.1"}, path);
  Run({"/sbin/ip", "route", "add", "default", "via", "fd00:231:90::1"}, path);
  return path;
}

std::string RealHost::Run(std::vector<std::string> argv, const std::string& netns) {
  if (!netns.empty()) {
    argv.insert(argv.begin(), {"/usr/bin/nsenter", "--net=" + netns});
  }
  const std::string program = argv.front();
  argv.erase(argv.begin());
  const auto out = process::Run(
      CallContext::Background(std::chrono::seconds(20)),
      {.program = program, .args = std::move(argv), .env = process::PlainEnvironment()});
  return out.ok() ? out->out : out.status().ToString();
}

std::size_t RealHost::Leases() const {
  std::size_t count = 0;
  for (const std::string& name : os::ListDir(net.root / "ipam/real").value_or({})) {
    if (name.find_first_of(".:") != std::string::npos && !name.starts_with("last_reserved")) {
      ++count;
    }
  }
  return count;
}

std::string RealHost::Leftovers() const {
  std::string left;
  const std::string links = Run({"/sbin/ip", "-o", "link"});
  for (const char* kind : {"veth", "ifb", "bwp", "macvlan"}) {
    if (links.find(kind) != std::string::npos) left += links;
  }
  // A rule or chain of one pod names its id, its address or a hash of both; what stays has none.
  const std::string rules = Run({"/usr/sbin/nft", "list", "ruleset"});
  for (const char* mark :
       {"10.231.", "fd00:231:", "aaaaaaaaaaaa", "bbbbbbbbbbbb", "CNI-DN-", "crisp_hostports"}) {
    if (rules.find(mark) != std::string::npos) left += rules;
  }
  // The portmap plugin leaves that on.
  const std::string interfaces = "/proc/sys/net/ipv4/conf";
  for (const std::string& name : os::ListDir(interfaces).value_or({})) {
    if (!net.config.builtin_hostports) break;
    const std::string routed =
        os::ReadFile(interfaces + "/" + name + "/route_localnet").value_or("");
    if (routed != "0\n") left += name + " routes 127.0.0.1\n";
  }
  if (Leases() != 0) left += fmt::format("{} addresses\n", Leases());
  for (const std::string& name : net.Cached()) left += name + "\n";
  for (const std::string& name : os::ListDir(net.config.layout.NetnsDir()).value_or({})) {
    left += name + "\n";
  }
  return left;
}

}  // namespace crisp::netd
