// Each kind of the machine's own plugins: whether what it promises holds, by traffic and by CHECK,
// in a network namespace of the test's own that stands for the host.
#include <netinet/in.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>

#include "libs/os/namespaces.h"
#include "services/netd/tests/real_host.h"
#include "services/netd/tests/traffic.h"

namespace crisp::netd {
namespace {

constexpr int kPort = 8080;

const std::string kFour = R"([{"subnet": "10.231.77.0/24"}])";
const std::string kSix = R"([{"subnet": "fd00:231:77::/64"}])";

/// A plugin with host-local addresses of the ranges, and a way to everywhere.
std::string Interface(const std::string& type, const std::string& ranges,
                      const std::string& more = "") {
  return R"({"type": ")" + type + R"(", "ipam": {"type": "host-local", "dataDir": "$DIR",
    "ranges": [)" +
         ranges + R"(], "routes": [)" +
         (ranges.find("10.") != ranges.npos ? R"({"dst": "0.0.0.0/0"})" : "") +
         (ranges.find(',') != ranges.npos ? ", " : "") +
         (ranges.find("fd00") != ranges.npos ? R"({"dst": "::/0"})" : "") + "]}" + more + "}";
}

std::string Bridge(const std::string& ranges) {
  return Interface("bridge", ranges,
                   R"(, "bridge": "crt0", "isGateway": true, "hairpinMode": true)");
}

const std::string kPortmap = R"({"type": "portmap", "capabilities": {"portMappings": true}})";

runtime::v1::PodSandboxConfig WithPort(int host_port, runtime::v1::Protocol protocol) {
  auto config = PodConfig();
  auto* port = config.add_port_mappings();
  port->set_container_port(kPort);
  port->set_host_port(host_port);
  port->set_protocol(protocol);
  return config;
}

Status Checked(const RealHost& host, const PodId& pod) {
  const Result<bool> asked = host.net.networks->Check(host.net.Call(), pod);
  if (asked.ok() && !*asked) return Unimplemented("nobody was asked");
  return asked.status();
}

bool Says(const Status& status, const std::string& words) {
  INFO(status.ToString());
  CHECK_FALSE(status.ok());
  return status.message().find(words) != std::string::npos;
}

int FamilyOf(const std::string& address) {
  return address.find(':') == address.npos ? AF_INET : AF_INET6;
}

/// TCP from `netns` to one address of a pod.
bool Talks(const std::string& netns, const PodNetwork& pod, const std::string& address) {
  const os::UniqueFd listener = Listen(pod.netns_path, FamilyOf(address), SOCK_STREAM, kPort);
  return Reaches(netns, address, SOCK_STREAM, kPort, listener);
}

/// TCP from a pod to the host at `address`.
bool TalksToHost(const PodNetwork& pod, const std::string& address) {
  const os::UniqueFd listener = Listen("", FamilyOf(address), SOCK_STREAM, kPort + 1);
  return Reaches(pod.netns_path, address, SOCK_STREAM, kPort + 1, listener);
}

TEST_CASE("A bridge of IPv6 alone") {
  RealHost host("[" + Bridge(kSix) + "]");
  host.Inside([&host] {
    const PodNetwork one = host.Attach(kPod);
    const PodNetwork two = host.Attach(kOtherPod);
    REQUIRE(one.ips.size() == 1);
    CHECK(FamilyOf(one.ips[0]) == AF_INET6);
    CHECK(Checked(host, kPod).ok());
    CHECK(Talks("", one, one.ips[0]));
    CHECK(Talks(two.netns_path, one, one.ips[0]));
    CHECK(TalksToHost(one, "fd00:231:77::1"));
    CHECK(Talks(host.Outside(), two, two.ips[0]));
    host.Detach(kPod);
    host.Detach(kOtherPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("Point-to-point links: IPv4, IPv6, both") {
  for (const std::string& ranges : {kFour, kSix, kFour + "," + kSix}) {
    INFO(ranges);
    RealHost host("[" + Interface("ptp", ranges) + "," + kPortmap + "]");
    host.Inside([&host] {
      const PodNetwork one = host.Attach(kPod, WithPort(39210, runtime::v1::TCP));
      const PodNetwork two = host.Attach(kOtherPod);
      REQUIRE_FALSE(one.ips.empty());
      const std::string outside = host.Outside();
      for (const std::string& ip : one.ips) {
        INFO(ip);
        CHECK(Talks("", one, ip));
        CHECK(Talks(two.netns_path, one, ip));
        CHECK(Talks(outside, one, ip));
        const bool is_six = FamilyOf(ip) == AF_INET6;
        const std::string at = is_six ? "fd00:231:90::1" : "10.231.90.1";
        CHECK(TalksToHost(one, at));
        const os::UniqueFd listener = Listen(one.netns_path, FamilyOf(ip), SOCK_STREAM, kPort);
        CHECK(Reaches(outside, at, SOCK_STREAM, 39210, listener));
        CHECK(Reaches("", at, SOCK_STREAM, 39210, listener));
      }
      host.Detach(kPod);
      host.Detach(kOtherPod);
      CHECK(host.Leftovers().empty());
    });
  }
}

TEST_CASE("macvlan, of both families: pods of one wire, and a machine on it") {
  RealHost host("[" + Interface("macvlan", kFour + "," + kSix, R"(, "master": "wire")") + "]");
  host.Inside([&host] {
    host.Run({"/sbin/ip", "link", "add", "wire", "type", "veth", "peer", "name", "far"});
    host.Run({"/sbin/ip", "link", "set", "wire", "up"});
    host.Run({"/sbin/ip", "link", "set", "far", "up"});
    host.Run({"/sbin/ip", "addr", "add", "10.231.77.200/24", "dev", "far"});
    host.Run({"/sbin/ip", "addr", "add", "fd00:231:77::200/64", "dev", "far", "nodad"});
    const PodNetwork one = host.Attach(kPod);
    const PodNetwork two = host.Attach(kOtherPod);
    REQUIRE(one.ips.size() == 2);
    CHECK(Checked(host, kPod).ok());
    for (const std::string& ip : one.ips) {
      INFO(ip);
      CHECK(Talks(two.netns_path, one, ip));
      CHECK(Talks("", one, ip));
    }
    host.Detach(kPod);
    host.Detach(kOtherPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("loopback in a chain: the pod reaches itself, and the result of the others goes on") {
  RealHost host("[" + Bridge(kFour + "," + kSix) + R"(, {"type": "loopback"}])");
  host.Inside([&host] {
    const PodNetwork network = host.Attach(kPod);
    CHECK(network.ips.size() == 2);
    const std::string lo = host.Run({"/sbin/ip", "addr", "show", "lo"}, network.netns_path);
    CHECK(lo.find("LOOPBACK,UP") != std::string::npos);
    CHECK(Talks(network.netns_path, network, "127.0.0.1"));
    CHECK(Talks(network.netns_path, network, "::1"));
    CHECK(Checked(host, kPod).ok());
    host.Run({"/sbin/ip", "link", "set", "lo", "down"}, network.netns_path);
    CHECK(Says(Checked(host, kPod), "plugin loopback: CHECK failed"));
    host.Detach(kPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("SCTP comes through portmap and through builtin host ports") {
  for (const bool builtin : {false, true}) {
    INFO("builtin " << builtin);
    RealHost host("[" + Bridge(kFour) + "," + kPortmap + "]");
    host.net.config.builtin_hostports = builtin;
    host.net.Restart();
    host.Inside([&host] {
      const PodNetwork network = host.Attach(kPod, WithPort(39211, runtime::v1::SCTP));
      const std::string outside = host.Outside();
      CHECK(SctpArrives(outside, "10.231.90.1", 39211, network.netns_path, kPort));
      CHECK_FALSE(SctpArrives(outside, "10.231.90.1", 39212, network.netns_path, kPort));
      host.Detach(kPod);
      CHECK(host.Leftovers().empty());
    });
  }
}

TEST_CASE("bandwidth holds a pod to its rates, in and out") {
  // The burst that an annotation gives is as good as none: here it is the file's, and small.
  RealHost host("[" + Bridge(kFour) + R"(, {"type": "bandwidth",
    "ingressRate": 16000000, "ingressBurst": 800000,
    "egressRate": 16000000, "egressBurst": 800000}])");
  host.Inside([&host] {
    const PodNetwork network = host.Attach(kPod);
    CHECK(Checked(host, kPod).ok());
    constexpr std::size_t kBytes = 1'000'000;  // half a second
    constexpr std::chrono::milliseconds kLeast(250);
    const os::UniqueFd in = Listen(network.netns_path, AF_INET, SOCK_STREAM, kPort);
    CHECK(TransferTime("", network.ips[0], kPort, in, kBytes) > kLeast);
    const os::UniqueFd out = Listen("", AF_INET, SOCK_STREAM, kPort);
    CHECK(TransferTime(network.netns_path, "10.231.77.1", kPort, out, kBytes) > kLeast);
    host.Detach(kPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("firewall lets a pod out of a host that forwards nothing else, and nobody in") {
  for (const bool with_firewall : {true, false}) {
    INFO("firewall " << with_firewall);
    RealHost host("[" + Bridge(kFour + "," + kSix) +
                  (with_firewall ? R"(, {"type": "firewall"}])" : "]"));
    host.Inside([&host, with_firewall] {
      const std::string outside = host.Outside();
      for (const char* program : {"/usr/sbin/iptables", "/usr/sbin/ip6tables"}) {
        host.Run({program, "-P", "FORWARD", "DROP"});
      }
      const PodNetwork network = host.Attach(kPod);
      REQUIRE(network.ips.size() == 2);
      for (const char* far : {"10.231.90.2", "fd00:231:90::2"}) {
        INFO(far);
        const os::UniqueFd listener = Listen(outside, FamilyOf(far), SOCK_STREAM, kPort);
        CHECK(Reaches(network.netns_path, far, SOCK_STREAM, kPort, listener) == with_firewall);
      }
      CHECK_FALSE(Talks(outside, network, network.ips[0]));
      CHECK(TalksToHost(network, "10.231.77.1"));
      if (with_firewall) {
        CHECK(Checked(host, kPod).ok());
        const std::string rules = host.Run({"/usr/sbin/iptables", "-S", "CNI-FORWARD"});
        CHECK(rules.find("-s " + network.ips[0] + "/32 -j ACCEPT") != std::string::npos);
        host.Run({"/usr/sbin/iptables", "-F", "CNI-FORWARD"});
        CHECK(Says(Checked(host, kPod), "plugin firewall: CHECK failed"));
      }
      host.Detach(kPod);
      CHECK(host.Leftovers().empty());
    });
  }
}

TEST_CASE("CHECK of a chain of five finds what was damaged, in the plugin's words") {
  RealHost host("[" + Bridge(kFour + "," + kSix) + R"(, {"type": "firewall"},
    {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400},
    {"type": "bandwidth", "ingressRate": 100000000, "ingressBurst": 8000000}, {"type": "loopback"}])");
  host.Inside([&host] {
    const PodNetwork network = host.Attach(kPod);
    CHECK(Checked(host, kPod).ok());
    const auto ip = [&host, &network](std::vector<std::string> words) {
      words.insert(words.begin(), "/sbin/ip");
      host.Run(std::move(words), network.netns_path);
    };
    ip({"link", "set", "eth0", "mtu", "1300"});
    CHECK(Says(Checked(host, kPod), "plugin tuning: CHECK failed"));
    ip({"link", "set", "eth0", "mtu", "1400"});
    CHECK(Checked(host, kPod).ok());
    ip({"addr", "del", network.ips.at(0) + "/24", "dev", "eth0"});
    CHECK(Says(Checked(host, kPod), "plugin bridge: CHECK failed"));
    // A pod like that is detached like any other.
    host.Detach(kPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("CNI 0.4.0: the chain, CHECK, and DEL with the result") {
  RealHost host("[" + Bridge(kFour) + R"(, {"type": "firewall"}, {"type": "loopback"}])",
                {"0.4.0"});
  host.Inside([&host] {
    const PodNetwork network = host.Attach(kPod);
    REQUIRE(network.ips.size() == 1);
    CHECK(network.cni_result.find(R"("cniVersion":"0.4.0")") != std::string::npos);
    CHECK(Talks("", network, network.ips[0]));
    CHECK(Checked(host, kPod).ok());
    host.Detach(kPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("CHECK of portmap") {
  // Debian 12 ships 1.1.1, whose CHECK looks for its rules otherwise than it has written them, and
  // fails for IPv4. Either way it is asked, and its own words come out.
  RealHost host("[" + Bridge(kFour) + "," + kPortmap + "]");
  host.Inside([&host] {
    host.Attach(kPod, WithPort(39213, runtime::v1::TCP));
    const Status checked = Checked(host, kPod);
    if (!checked.ok()) CHECK(Says(checked, "plugin portmap: CHECK failed"));
    host.Detach(kPod);
    CHECK(host.Leftovers().empty());
  });
}

TEST_CASE("Plugins of CNI 1.1 are asked how they are, and told which pods live") {
  RealHost host("[" + Bridge(kFour) + R"(, {"type": "firewall"}, {"type": "loopback"}])");
  host.Inside([&host] {
    const Status looked = host.net.readiness->Look(host.net.Call());
    INFO(looked.ToString());
    CHECK(looked.ok());
    const PodNetwork network = host.Attach(kPod);
    // Of a pod that netd has never heard of, as after the loss of its records.
    const std::string stray = "ipam/real/10.231.77.200";
    host.net.root.Write(stray, kOtherPod.str() + "\r\neth0");
    REQUIRE(host.Leases() == 2);
    const Status collected = host.net.networks->CollectGarbage(host.net.Call());
    INFO(collected.ToString());
    CHECK(collected.ok());
    // Debian 12's know nothing of it; those of today (1.9) answer, and free nothing yet.
    static_cast<void>(os::RemoveFile(host.net.root / stray).ok());
    CHECK(host.Leases() == 1);
    CHECK(Talks("", network, network.ips.at(0)));
    host.Detach(kPod);
    CHECK(host.Leases() == 0);
    CHECK(host.Leftovers().empty());
  });
}

}  // namespace
}  // namespace crisp::netd
