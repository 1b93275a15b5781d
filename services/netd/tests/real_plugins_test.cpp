// With the machine's own plugins, in a network namespace of the test's own that stands for the
// host.
#include <netinet/in.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>

#include "libs/json/json.h"
#include "libs/os/namespaces.h"
#include "services/netd/tests/real_host.h"
#include "services/netd/tests/traffic.h"

namespace crisp::netd {
namespace {

constexpr int kPort = 8080;

const std::string kBridge = R"({"type": "bridge", "bridge": "crt0", "isGateway": true,
  "hairpinMode": true, "ipam": {"type": "host-local", "dataDir": "$DIR",
    "ranges": [[{"subnet": "10.231.77.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}})";
const std::string kDual = R"({"type": "bridge", "bridge": "crt0", "isGateway": true,
  "hairpinMode": true, "capabilities": {"ips": true},
  "ipam": {"type": "host-local", "dataDir": "$DIR",
    "ranges": [[{"subnet": "10.231.77.0/24"}], [{"subnet": "fd00:231:77::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}})";
const std::string kPortmap = R"({"type": "portmap", "capabilities": {"portMappings": true}})";

runtime::v1::PodSandboxConfig WithPort(int host_port,
                                       runtime::v1::Protocol protocol = runtime::v1::TCP) {
  auto config = PodConfig();
  auto* port = config.add_port_mappings();
  port->set_container_port(kPort);
  port->set_host_port(host_port);
  port->set_protocol(protocol);
  return config;
}

TEST_CASE("A pod gets an address of the bridge's subnet and its port, and gives them back") {
  RealHost host("[" + kBridge + "," + kPortmap + "]");
  host.Inside([&host] {
    const PodNetwork network = host.Attach(kPod, WithPort(39177));
    REQUIRE(network.ips.size() == 1);
    CHECK(network.ips[0].starts_with("10.231.77."));
    CHECK(host.Leases() == 1);
    const std::string lo = host.Run({"/sbin/ip", "-br", "addr", "show", "lo"}, network.netns_path);
    CHECK(lo.find("127.0.0.1") != std::string::npos);
    const std::string eth0 =
        host.Run({"/sbin/ip", "-br", "addr", "show", "eth0"}, network.netns_path);
    CHECK(eth0.find(network.ips[0]) != std::string::npos);
    CHECK(host.Run({"/usr/sbin/iptables", "-t", "nat", "-S"}).find("39177") != std::string::npos);
    host.Detach(kPod);
    host.Detach(kPod);
    CHECK(host.Run({"/usr/sbin/iptables", "-t", "nat", "-S"}).find("39177") == std::string::npos);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("A dual-stack chain of five: traffic between pods, with the host, and to host ports") {
  RealHost host("[" + kDual + "," + kPortmap + R"(,
    {"type": "firewall"}, {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"},
     "capabilities": {"mac": true}},
    {"type": "bandwidth", "capabilities": {"bandwidth": true}}])");
  host.Inside([&host] {
    auto config = WithPort(39178);
    *config.add_port_mappings() = WithPort(39179, runtime::v1::UDP).port_mappings(0);
    (*config.mutable_annotations())["kubernetes.io/ingress-bandwidth"] = "100M";
    (*config.mutable_annotations())["kubernetes.io/egress-bandwidth"] = "20M";
    (*config.mutable_annotations())["crisp.network/ips"] = "10.231.77.99/24,fd00:231:77::99/64";
    (*config.mutable_annotations())["crisp.network/mac"] = "02:00:00:00:77:99";
    const PodNetwork one = host.Attach(kPod, config);
    const PodNetwork two = host.Attach(kOtherPod, WithPort(39187));
    CHECK(one.ips == std::vector<std::string>{"10.231.77.99", "fd00:231:77::99"});
    REQUIRE(two.ips.size() == 2);
    const std::string link = host.Run({"/sbin/ip", "link", "show", "eth0"}, one.netns_path);
    CHECK(link.find("02:00:00:00:77:99") != std::string::npos);
    // Towards the pod and, by way of an ifb, from it.
    const std::string shaped = host.Run({"/usr/sbin/tc", "qdisc"});
    CHECK(shaped.find("rate 100Mbit") != std::string::npos);
    CHECK(shaped.find("rate 20Mbit") != std::string::npos);
    CHECK(host.Run({"/bin/cat", "/proc/sys/net/core/somaxconn"}, one.netns_path) == "500\n");

    const os::UniqueFd tcp4 = Listen(one.netns_path, AF_INET, SOCK_STREAM, kPort);
    const os::UniqueFd tcp6 = Listen(one.netns_path, AF_INET6, SOCK_STREAM, kPort + 1);
    const os::UniqueFd udp4 = Listen(one.netns_path, AF_INET, SOCK_DGRAM, kPort);
    const os::UniqueFd host4 = Listen("", AF_INET, SOCK_STREAM, kPort);
    CHECK(Reaches(two.netns_path, one.ips[0], SOCK_STREAM, kPort, tcp4));
    CHECK(Reaches(two.netns_path, one.ips[1], SOCK_STREAM, kPort + 1, tcp6));
    CHECK(Reaches("", one.ips[0], SOCK_STREAM, kPort, tcp4));
    CHECK(Reaches("", one.ips[1], SOCK_STREAM, kPort + 1, tcp6));
    CHECK(Reaches(one.netns_path, "10.231.77.1", SOCK_STREAM, kPort, host4));
    // Host ports: from the host's address, from its loopback, from the other pod.
    CHECK(Reaches("", "10.231.77.1", SOCK_STREAM, 39178, tcp4));
    CHECK(Reaches("", "127.0.0.1", SOCK_STREAM, 39178, tcp4));
    CHECK(Reaches(two.netns_path, "10.231.77.1", SOCK_STREAM, 39178, tcp4));
    CHECK(Reaches("", "10.231.77.1", SOCK_DGRAM, 39179, udp4));
    const std::string outside = host.Outside();
    CHECK(Reaches(outside, "10.231.90.1", SOCK_STREAM, 39178, tcp4));
    CHECK(Reaches(outside, "10.231.90.1", SOCK_DGRAM, 39179, udp4));
    const os::UniqueFd six = Listen(two.netns_path, AF_INET6, SOCK_STREAM, kPort);
    for (const std::string& from : {std::string(), outside}) {
      INFO("from " << from);
      CHECK(Reaches(from, "fd00:231:90::1", SOCK_STREAM, 39187, six));
    }
    host.Detach(kPod);
    host.Detach(kOtherPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("SCTP ports and host addresses reach the rules") {
  RealHost host("[" + kBridge + "," + kPortmap + "]");
  host.Inside([&host] {
    auto config = WithPort(39180, runtime::v1::SCTP);
    config.mutable_port_mappings(0)->set_host_ip("10.9.9.9");
    host.Attach(kPod, config);
    const std::string rules = host.Run({"/usr/sbin/iptables", "-t", "nat", "-S"});
    CHECK(rules.find("-d 10.9.9.9/32 -p sctp") != std::string::npos);
    host.Detach(kPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("Builtin host ports need no plugin, and go exactly as they came") {
  RealHost host("[" + kDual + "," + kPortmap + "]");
  host.net.config.builtin_hostports = true;
  host.net.Restart();
  host.Inside([&host] {
    auto config = WithPort(39190);
    *config.add_port_mappings() = WithPort(39191, runtime::v1::UDP).port_mappings(0);
    auto* one_address = config.add_port_mappings();
    *one_address = WithPort(39192).port_mappings(0);
    one_address->set_host_ip("10.231.77.1");
    *config.add_port_mappings() = WithPort(39190, runtime::v1::SCTP).port_mappings(0);
    const PodNetwork one = host.Attach(kPod, config);
    const PodNetwork two = host.Attach(kOtherPod, WithPort(39193));
    const std::string rules =
        host.Run({"/usr/sbin/nft", "list", "table", "inet", "crisp_hostports"});
    CHECK(rules.find("sctp . 39190") != std::string::npos);
    // The plugin has been told of no ports.
    CHECK(host.Run({"/usr/sbin/iptables", "-t", "nat", "-S"}).find("39190") == std::string::npos);

    const os::UniqueFd tcp4 = Listen(one.netns_path, AF_INET, SOCK_STREAM, kPort);
    const os::UniqueFd udp4 = Listen(one.netns_path, AF_INET, SOCK_DGRAM, kPort);
    for (const std::string& from : {std::string(), one.netns_path, two.netns_path}) {
      INFO("from " << from);
      CHECK(Reaches(from, "10.231.77.1", SOCK_STREAM, 39190, tcp4));
      CHECK(Reaches(from, "10.231.77.1", SOCK_DGRAM, 39191, udp4));
    }
    CHECK(Reaches("", "127.0.0.1", SOCK_STREAM, 39190, tcp4));
    CHECK(Reaches("", "127.0.0.1", SOCK_DGRAM, 39191, udp4));
    CHECK(Reaches("", "10.231.77.1", SOCK_STREAM, 39192, tcp4));
    CHECK_FALSE(Reaches("", "127.0.0.1", SOCK_STREAM, 39192, tcp4));
    const os::UniqueFd tcp6 = Listen(two.netns_path, AF_INET6, SOCK_STREAM, kPort);
    CHECK(Reaches("", "fd00:231:77::1", SOCK_STREAM, 39193, tcp6));
    CHECK(Reaches(one.netns_path, "fd00:231:77::1", SOCK_STREAM, 39193, tcp6));

    const std::string outside = host.Outside();
    CHECK(Reaches(outside, "10.231.90.1", SOCK_STREAM, 39190, tcp4));
    CHECK(Reaches(outside, "10.231.90.1", SOCK_DGRAM, 39191, udp4));
    CHECK(Reaches(outside, "fd00:231:90::1", SOCK_STREAM, 39193, tcp6));

    // A port that is taken fails the pod, which is undone; nobody else notices.
    const PodId third(std::string(64, 'c'));
    const auto taken = host.net.networks->Attach(host.net.Call(), third, WithPort(39190));
    CHECK(taken.code() == Code::kFailedPrecondition);
    CHECK(host.Leases() == 4);
    CHECK(Reaches("", "10.231.77.1", SOCK_STREAM, 39190, tcp4));

    // Another's reload of the firewall is healed.
    host.Run({"/usr/sbin/nft", "flush", "ruleset"});
    CHECK(host.net.networks->SyncHostPorts(host.net.Call()).ok());
    CHECK(Reaches("", "10.231.77.1", SOCK_STREAM, 39190, tcp4));
    host.Run({"/usr/sbin/nft", "flush", "ruleset"});
    host.Detach(kPod);
    CHECK(Reaches("", "fd00:231:77::1", SOCK_STREAM, 39193, tcp6));
    host.Detach(kOtherPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("macvlan, loopback and the old protocol: pods of one wire see each other") {
  RealHost host(R"([{"type": "macvlan", "master": "wire", "ipam": {"type": "host-local",
    "dataDir": "$DIR", "ranges": [[{"subnet": "10.231.79.0/24"}]]}}, {"type": "loopback"}])",
                {"0.3.1"});
  host.Inside([&host] {
    host.Run({"/sbin/ip", "link", "add", "wire", "type", "veth", "peer", "name", "far"});
    host.Run({"/sbin/ip", "link", "set", "wire", "up"});
    host.Run({"/sbin/ip", "link", "set", "far", "up"});
    const PodNetwork one = host.Attach(kPod);
    const PodNetwork two = host.Attach(kOtherPod);
    const os::UniqueFd listener = Listen(one.netns_path, AF_INET, SOCK_STREAM, kPort);
    CHECK(Reaches(two.netns_path, one.ips.at(0), SOCK_STREAM, kPort, listener));
    host.Detach(kPod);
    host.Detach(kOtherPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("After a reboot the addresses are given back without the namespace") {
  RealHost host("[" + kBridge + "," + kPortmap + "]");
  host.Inside([&host] {
    host.Attach(kPod, WithPort(39181));
    CHECK(host.Leases() == 1);
    CHECK(os::UnpinNamespace(host.net.config.layout.NetnsPath(kPod)).ok());
    host.net.Restart("boot-2");
    const auto unfinished = host.net.networks->Unfinished();
    REQUIRE(unfinished.ok());
    for (const PodId& pod : *unfinished) {
      const Status done = host.net.networks->RollBack(host.net.Call(), pod);
      INFO(done.ToString());
      CHECK(done.ok());
    }
    CHECK(host.Leases() == 0);
  });
}

TEST_CASE("After a power cut even an address whose owner was not on the disk yet is given back") {
  RealHost host("[" + kBridge + "]");
  host.Inside([&host] {
    const PodNetwork network = host.Attach(kPod);
    host.net.root.Write("ipam/real/" + network.ips.at(0), "");
    CHECK(os::UnpinNamespace(host.net.config.layout.NetnsPath(kPod)).ok());
    host.net.Restart("boot-2");
    CHECK(host.net.networks->RollBack(host.net.Call(), kPod).ok());
    CHECK(host.Leases() == 0);
    // One that no record knows of either.
    host.net.root.Write("ipam/real/10.231.77.99", "");
    REQUIRE(host.net.readiness->Look(host.net.Call()).ok());
    CHECK(host.net.networks->CollectGarbage(host.net.Call()).ok());
    CHECK(host.Leases() == 0);
  });
}

TEST_CASE("An attempt that was cut off after ADD leaks no address") {
  RealHost host("[" + kBridge + "," + kPortmap + "]");
  host.Inside([&host] {
    host.Attach(kPod);
    Attachment row = host.net.store->Get(kPod).value().value();
    row.phase = Phase::kAttaching;
    row.result.clear();
    REQUIRE(host.net.store->Put(row).ok());
    host.net.Restart();
    host.Attach(kPod);
    CHECK(host.Leases() == 1);
    host.Detach(kPod);
    CHECK(host.Leftovers().empty());
  });
}

}  // namespace
}  // namespace crisp::netd
