// With the machine's own bridge, host-local and portmap, on a bridge, subnet and directory of this
// test alone.
#include <unistd.h>

#include <catch2/catch.hpp>

#include "libs/os/namespaces.h"
#include "libs/process/command.h"
#include "services/netd/tests/test_net.h"

namespace crisp::netd {
namespace {

using namespace std::chrono_literals;

std::string Run(const std::string& program, std::vector<std::string> args) {
  const auto out = process::Run(
      CallContext::Background(20s),
      {.program = program, .args = std::move(args), .env = process::PlainEnvironment()});
  return out.ok() ? out->out : out.status().ToString();
}

bool HasRule(const std::string& text) {
  return Run("/usr/sbin/iptables", {"-t", "nat", "-S"}).find(text) != std::string::npos;
}

struct RealNet {
  RealNet() {
    net.config.bin_dirs = {"/usr/lib/cni", "/opt/cni/bin"};
    net.root.Write("conf/10-real.conflist", fmt::format(R"({{
      "cniVersion": "1.0.0", "name": "{0}", "plugins": [
        {{"type": "bridge", "bridge": "{0}", "isGateway": true,
          "ipam": {{"type": "host-local", "dataDir": "{1}",
                    "ranges": [[{{"subnet": "10.231.77.0/24"}}]]}}}},
        {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}})",
                                                        bridge, net.root / "ipam"));
    net.Restart();
  }
  ~RealNet() {
    CHECK(net.networks->Reconcile(net.Call(), {}).ok());
    Run("/sbin/ip", {"link", "delete", bridge});
  }
  /// Addresses that are taken.
  std::size_t Leases() const {
    std::size_t count = 0;
    for (const std::string& name : os::ListDir(net.root / ("ipam/" + bridge)).value_or({})) {
      if (name.starts_with("10.")) ++count;
    }
    return count;
  }

  TestNet net;
  std::string bridge = fmt::format("crt{}", ::getpid() % 1000000);
};

TEST_CASE("A pod gets an address of the bridge's subnet and its port, and gives them back") {
  RealNet real;
  auto config = PodConfig();
  auto* port = config.add_port_mappings();
  port->set_container_port(80);
  port->set_host_port(39177);
  const auto network = real.net.networks->Attach(real.net.Call(), kPod, config);
  INFO(network.status().ToString());
  REQUIRE(network.ok());
  REQUIRE(network->ips.size() == 1);
  CHECK(network->ips[0].starts_with("10.231.77."));
  CHECK(real.Leases() == 1);
  std::string lo;
  std::string eth0;
  const auto look = [&lo, &eth0] {
    lo = Run("/sbin/ip", {"-br", "addr", "show", "lo"});
    eth0 = Run("/sbin/ip", {"-br", "addr", "show", "eth0"});
    return Status::Ok();
  };
  CHECK(os::RunInNamespace(network->netns_path, look).ok());
  CHECK(lo.find("127.0.0.1") != std::string::npos);
  CHECK(eth0.find(network->ips[0]) != std::string::npos);
  CHECK(HasRule("39177"));
  const Status detached = real.net.networks->Detach(real.net.Call(), kPod);
  INFO(detached.ToString());
  CHECK(detached.ok());
  CHECK(real.Leases() == 0);
  CHECK_FALSE(HasRule("39177"));
}

TEST_CASE("After a reboot the addresses are given back without the namespace") {
  RealNet real;
  REQUIRE(real.net.networks->Attach(real.net.Call(), kPod, PodConfig()).ok());
  CHECK(real.Leases() == 1);
  CHECK(os::UnpinNamespace(real.net.config.layout.NetnsPath(kPod)).ok());
  real.net.Restart("boot-2");
  const auto unfinished = real.net.networks->Unfinished();
  REQUIRE(unfinished.ok());
  for (const PodId& pod : *unfinished) {
    const Status done = real.net.networks->RollBack(real.net.Call(), pod);
    INFO(done.ToString());
    CHECK(done.ok());
  }
  CHECK(real.Leases() == 0);
}

TEST_CASE("An attempt that was cut off after ADD leaks no address") {
  RealNet real;
  REQUIRE(real.net.networks->Attach(real.net.Call(), kPod, PodConfig()).ok());
  Attachment row = real.net.store->Get(kPod).value().value();
  row.phase = Phase::kAttaching;
  row.result.clear();
  REQUIRE(real.net.store->Put(row).ok());
  real.net.Restart();
  const auto network = real.net.networks->Attach(real.net.Call(), kPod, PodConfig());
  INFO(network.status().ToString());
  REQUIRE(network.ok());
  CHECK(real.Leases() == 1);
  CHECK(real.net.networks->Detach(real.net.Call(), kPod).ok());
  CHECK(real.Leases() == 0);
}

}  // namespace
}  // namespace crisp::netd
