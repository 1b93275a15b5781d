// Builtin host ports over crashes and an nft that fails, with the machine's own plugins in a
// network namespace that stands for the host.
#include <catch2/catch.hpp>

#include "libs/os/namespaces.h"
#include "services/netd/tests/real_host.h"

namespace crisp::netd {
namespace {

const std::string kChain = R"([{"type": "bridge", "bridge": "crt0", "isGateway": true,
  "ipam": {"type": "host-local", "dataDir": "$DIR", "ranges": [[{"subnet": "10.231.77.0/24"}]]}}])";
const std::string kRouted = "/proc/sys/net/ipv4/conf/crt0/route_localnet";

/// Its nft counts its calls, and fails while the file "broken" is there.
class PortsHost : public RealHost {
 public:
  PortsHost() : RealHost(kChain) {
    net.config.builtin_hostports = true;
    net.config.nft = net.root.Script(
        "nft", fmt::format("echo x >> {0}/calls; test ! -e {0}/broken || {{ echo torn >&2; exit 1; "
                           "}}; exec /usr/sbin/nft \"$@\"",
                           net.root.path()));
    net.Restart();
  }
  void Break() const { net.root.Write("broken", ""); }
  void Mend() const { CHECK(os::RemoveFile(net.root / "broken").ok()); }
  static std::string Rules() { return Run({"/usr/sbin/nft", "list", "ruleset"}); }
  bool HasNetns() const { return os::Exists(net.config.layout.NetnsPath(kPod)); }
};

runtime::v1::PodSandboxConfig WithPort() {
  auto config = PodConfig();
  config.add_port_mappings()->set_container_port(80);
  config.mutable_port_mappings(0)->set_host_port(39195);
  return config;
}

TEST_CASE("A pod with host ports ends while nft fails; its address waits for the rules to go") {
  PortsHost host;
  host.Inside([&host] {
    Networks& networks = *host.net.networks;
    host.Attach(kPod, WithPort());
    host.Break();
    for (int i = 0; i < 2; ++i) host.Detach(kPod);
    CHECK_FALSE(host.HasNetns());
    CHECK(host.Leases() == 1);
    CHECK(networks.Owed() == 1);
    CHECK_FALSE(networks.RollBack(host.net.Call(), kPod).ok());
    CHECK(host.Leases() == 1);
    host.Mend();
    CHECK(networks.RollBack(host.net.Call(), kPod).ok());
    CHECK(networks.Owed() == 0);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("What a kill between the record and the ports left undone, the retry does") {
  PortsHost host;
  host.Inside([&host] {
    const PodNetwork network = host.Attach(kPod, WithPort());
    host.Run({"/usr/sbin/nft", "delete", "table", "inet", "crisp_hostports"});
    CHECK(os::RemoveTree(host.net.root / "cache").ok());
    host.net.Restart();
    CHECK(host.Attach(kPod, WithPort()).ips == network.ips);
    CHECK(host.Rules().find("tcp . 39195") != std::string::npos);
    CHECK(host.net.Cached().size() == 1);
    host.Attach(kPod, WithPort());
    // Ports that cannot be opened are no answer: the pod is undone.
    host.Run({"/usr/sbin/nft", "delete", "table", "inet", "crisp_hostports"});
    host.Break();
    const auto failed = host.net.networks->Attach(host.net.Call(), kPod, WithPort());
    CHECK(failed.status().message().find("torn") != std::string::npos);
    CHECK_FALSE(host.HasNetns());
    host.Mend();
    CHECK(host.net.networks->RollBack(host.net.Call(), kPod).ok());
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("With the last pod that has ports the table goes, and the way in from the loopback") {
  PortsHost host;
  host.Inside([&host] {
    host.Attach(kPod, WithPort());
    host.Attach(kOtherPod);
    CHECK(os::ReadFile(kRouted).value() == "1\n");
    host.Detach(kPod);
    CHECK(host.Rules().find("crisp_hostports") == std::string::npos);
    CHECK(os::ReadFile(kRouted).value() == "0\n");
    // But not where somebody else has opened it.
    CHECK(os::WriteSysctl("net.ipv4.conf.crt0.route_localnet", "1").ok());
    host.Attach(kPod, WithPort());
    host.Detach(kPod);
    CHECK(os::ReadFile(kRouted).value() == "1\n");
    CHECK(os::WriteSysctl("net.ipv4.conf.crt0.route_localnet", "0").ok());
    host.Detach(kOtherPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("A table that an earlier life left goes at the start; without ports nft is left alone") {
  PortsHost host;
  host.Inside([&host] {
    host.Run({"/usr/sbin/nft", "add", "table", "inet", "crisp_hostports"});
    CHECK(host.net.networks->SyncHostPorts(host.net.Call()).ok());
    CHECK(host.Rules().find("crisp_hostports") == std::string::npos);
    CHECK(host.net.networks->SyncHostPorts(host.net.Call()).ok());
    host.Attach(kPod);
    host.Detach(kPod);
    CHECK(host.net.root.Read("calls") == "x\n");
  });
}

}  // namespace
}  // namespace crisp::netd
