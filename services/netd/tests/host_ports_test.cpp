// Builtin host ports over crashes and an nft that fails, with the machine's own plugins in a
// network namespace that stands for the host.
#include <sys/socket.h>

#include <catch2/catch.hpp>

#include "libs/os/conntrack.h"
#include "libs/os/namespaces.h"
#include "services/netd/tests/real_host.h"
#include "services/netd/tests/traffic.h"

namespace crisp::netd {
namespace {

const std::string kChain = R"([{"type": "bridge", "bridge": "crt0", "isGateway": true,
  "ipam": {"type": "host-local", "dataDir": "$DIR", "ranges": [[{"subnet": "10.231.77.0/24"}]],
           "routes": [{"dst": "0.0.0.0/0"}]}}])";
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

TEST_CASE("nft is asked once whether it can, and then a call for each pod that comes or goes") {
  PortsHost host;
  host.Inside([&host] {
    const auto calls = [&host] { return host.net.root.Read("calls").size() / 2; };
    host.Attach(kPod, WithPort());
    auto config = WithPort();
    config.mutable_port_mappings(0)->set_host_port(39196);
    auto before = calls();
    host.Attach(kOtherPod, config);
    CHECK(calls() - before == 1);
    before = calls();
    host.Detach(kOtherPod);
    CHECK(calls() - before == 1);
    // Another program of that name is asked anew.
    host.net.root.Script("nft", "echo other >&2; exit 1");
    const auto failed = host.net.networks->Attach(host.net.Call(), kOtherPod, config);
    CHECK(failed.status().message().find("netd.hostports is builtin: nft: other") !=
          std::string::npos);
    host.net.root.Script("nft", "exec /usr/sbin/nft \"$@\"");
    host.Detach(kPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("Ports of an address that the pod's network has not leave no table either") {
  PortsHost host;
  host.Inside([&host] {
    auto config = WithPort();
    config.mutable_port_mappings(0)->set_host_ip("fd00:231:90::1");  // the pod has IPv4 alone
    host.Attach(kPod, config);
    host.Attach(kOtherPod, WithPort());
    host.Detach(kOtherPod);
    host.Detach(kPod);
    CHECK(host.Leftovers().empty());
  });
}

constexpr int kContainerPort = 80;

runtime::v1::PodSandboxConfig WithUdpPort(int host_port) {
  auto config = WithPort();
  config.mutable_port_mappings(0)->set_host_port(host_port);
  config.mutable_port_mappings(0)->set_protocol(runtime::v1::UDP);
  return config;
}

TEST_CASE("A client that sends UDP from one port all the time reaches the pod of the moment") {
  PortsHost host;
  host.Inside([&host] {
    constexpr int kUdpPort = 39197;
    host.Attach(kOtherPod, WithPort());  // with the first table the kernel begins to keep flows
    const UdpClient client(host.Outside(), "10.231.90.1", kUdpPort);
    // Before there is a pod the host itself is asked, and has nobody there.
    client.Send();
    const PodNetwork one = host.Attach(kPod, WithUdpPort(kUdpPort));
    {
      const os::UniqueFd listener = Listen(one.netns_path, AF_INET, SOCK_DGRAM, kContainerPort);
      CHECK(client.Reaches(listener));
    }
    host.Detach(kPod);
    const PodId next(std::string(64, 'c'));
    const PodNetwork two = host.Attach(next, WithUdpPort(kUdpPort));
    CHECK(two.ips != one.ips);
    const os::UniqueFd listener = Listen(two.netns_path, AF_INET, SOCK_DGRAM, kContainerPort);
    CHECK(client.Reaches(listener));
    host.Detach(next);
    host.Detach(kOtherPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("Only the flows of the port are forgotten") {
  PortsHost host;
  host.Inside([&host] {
    constexpr int kUdpPort = 39198;
    const std::string outside = host.Outside();
    host.Attach(kPod, WithUdpPort(kUdpPort));
    const UdpClient mapped(outside, "10.231.90.1", kUdpPort);
    const UdpClient other(outside, "10.231.90.1", kUdpPort + 1);
    mapped.Send();
    other.Send();
    CHECK(os::ForgetUdpFlows({{.port = kUdpPort, .address = "10.231.77.1"}}).value() == 0);
    CHECK(os::ForgetUdpFlows({{.port = kUdpPort, .address = "10.231.90.1"}}).value() == 1);
    CHECK(os::ForgetUdpFlows({{.port = kUdpPort, .address = ""}}).value() == 0);
    CHECK(os::ForgetUdpFlows({}).value() == 0);
    CHECK(os::ForgetUdpFlows({{.port = kUdpPort + 1, .address = ""}}).value() == 1);
    host.Detach(kPod);
    CHECK(host.Leftovers().empty());
  });
}

}  // namespace
}  // namespace crisp::netd
