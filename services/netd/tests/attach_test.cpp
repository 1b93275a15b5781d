// Attach and Detach with plugins that are scripts: what they are told, and what becomes of it when
// they fail, hang, die or talk nonsense. Needs root: the namespaces are real.
#include <catch2/catch.hpp>
#include <filesystem>
#include <thread>

#include "libs/json/json.h"
#include "libs/os/namespaces.h"
#include "services/netd/tests/fake_plugins.h"
#include "services/netd/tests/test_net.h"

namespace crisp::netd {
namespace {

using namespace std::chrono_literals;

const std::string kAdded = "ADD one NS\nADD two NS\n";
const std::string kDeleted = "DEL two NS\nDEL one NS\n";

/// As SIGKILL leaves it: the intent, a namespace, and no result.
void CutOff(TestNet& net) {
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  Attachment row = net.store->Get(kPod).value().value();
  row.phase = Phase::kAttaching;
  row.result.clear();
  REQUIRE(net.store->Put(row).ok());
  net.Restart();
}

TEST_CASE("Attach runs the chain once, tells it all, and answers the same again") {
  TestNet net;
  Healthy(net);
  auto config = PodConfig();
  auto* port = config.add_port_mappings();
  port->set_container_port(80);
  port->set_host_port(8080);
  (*config.mutable_linux()->mutable_sysctls())["net.ipv4.ip_forward"] = "1";
  const auto network = net.networks->Attach(net.Call(), kPod, config);
  INFO(network.status().ToString());
  REQUIRE(network.ok());
  CHECK(network->ips == std::vector<std::string>{"10.9.8.7", "fd00::7"});
  CHECK(network->netns_path == net.config.layout.NetnsPath(kPod));
  CHECK(os::IsPinnedNamespace(network->netns_path).value());
  std::string forward;
  const auto read = [&forward] {
    forward = os::ReadFile("/proc/sys/net/ipv4/ip_forward").value_or("");
    return Status::Ok();
  };
  CHECK(os::RunInNamespace(network->netns_path, read).ok());
  CHECK(forward == "1\n");

  // This and no more; PWD is the script's shell's own.
  CHECK(net.root.Read("log/two.ADD.env") ==
        fmt::format("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;"
                    "K8S_POD_INFRA_CONTAINER_ID={0};K8S_POD_UID=u-1\n"
                    "CNI_COMMAND=ADD\nCNI_CONTAINERID={0}\nCNI_IFNAME=eth0\nCNI_NETNS={1}\n"
                    "CNI_PATH={2}\nGOMAXPROCS=1\n"
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{2}\n"
                    "PWD={3}\n",
                    kPod.str(), network->netns_path, net.root / "bin",
                    std::filesystem::current_path().string()));
  const auto first = json::Parse(net.root.Read("log/one.ADD.stdin"));
  REQUIRE(first.ok());
  CHECK((*first)["name"] == "test");
  CHECK((*first)["cniVersion"] == "1.0.0");
  CHECK((*first)["mtu"] == 1400);
  CHECK_FALSE(first->contains("prevResult"));
  CHECK_FALSE(first->contains("runtimeConfig"));
  const auto second = json::Parse(net.root.Read("log/two.ADD.stdin"));
  REQUIRE(second.ok());
  CHECK((*second)["prevResult"]["ips"][0]["address"] == "10.9.8.7/24");
  CHECK((*second)["runtimeConfig"]["portMappings"][0]["hostPort"] == 8080);
  CHECK_FALSE(second->contains("capabilities"));

  const auto again = net.networks->Attach(net.Call(), kPod, config);
  REQUIRE(again.ok());
  CHECK(again->cni_result == network->cni_result);

  REQUIRE(net.Cached() == std::vector<std::string>{"test-" + kPod.str() + "-eth0"});
  const auto cached = json::Parse(net.root.Read("cache/results/" + net.Cached()[0]));
  REQUIRE(cached.ok());
  CHECK((*cached)["kind"] == "cniCacheV1");
  CHECK((*cached)["containerId"] == kPod.str());
  CHECK((*cached)["networkName"] == "test");
  CHECK((*cached)["ifName"] == "eth0");
  CHECK((*cached)["netns"] == network->netns_path);
  CHECK((*cached)["cniArgs"][1] == nlohmann::json({"K8S_POD_NAMESPACE", "shop"}));
  CHECK((*cached)["capabilityArgs"]["portMappings"][0]["hostPort"] == 8080);
  CHECK((*cached)["result"]["ips"][0]["address"] == "10.9.8.7/24");
  CHECK((*cached)["config"].get<std::string>().starts_with("eyJ"));  // {"
  net.Restart();
  CHECK(net.networks->Attach(net.Call(), kPod, config).value().ips == network->ips);
  CHECK(Calls(net) == kAdded);
}

TEST_CASE("Detach undoes in reverse, from the record, also without the configuration") {
  TestNet net;
  Healthy(net);
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK(os::RemoveTree(net.root / "conf").ok());
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  CHECK(net.networks->Detach(net.Call(), kOtherPod).ok());
  CHECK(Calls(net) == kAdded + kDeleted);
  const auto del = json::Parse(net.root.Read("log/one.DEL.stdin"));
  REQUIRE(del.ok());
  CHECK((*del)["prevResult"]["ips"][0]["address"] == "10.9.8.7/24");
  CHECK((*del)["mtu"] == 1400);
  CHECK_FALSE(os::Exists(net.config.layout.NetnsPath(kPod)));
  CHECK(net.store->List().value().empty());
  CHECK(net.Cached().empty());
}

TEST_CASE("DEL goes by the configuration of the ADD, whatever has become of it") {
  TestNet net;
  Healthy(net);
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  net.root.Write("conf/10-test.conflist", R"({"cniVersion": "0.4.0", "name": "changed",
      "plugins": [{"type": "one", "mtu": 9000}]})");
  REQUIRE(net.networks->Attach(net.Call(), kOtherPod, PodConfig()).ok());
  CHECK(json::Parse(net.root.Read("log/one.ADD.stdin"))->at("mtu") == 9000);
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  for (const char* plugin : {"one", "two"}) {
    const auto del = json::Parse(net.root.Read(fmt::format("log/{}.DEL.stdin", plugin)));
    REQUIRE(del.ok());
    CHECK((*del)["name"] == "test");
    CHECK((*del)["cniVersion"] == "1.0.0");
    CHECK(del->value("mtu", 1400) == 1400);
  }
  CHECK(net.networks->Detach(net.Call(), kOtherPod).ok());
}

TEST_CASE("A plugin that declares all capabilities is told of all") {
  TestNet net;
  Plugin(net, "all", kAddress);
  net.root.Write("conf/10-all.conf", R"({"cniVersion": "1.0.0", "name": "all", "type": "all",
      "capabilities": {"portMappings": true, "bandwidth": true, "dns": true, "ips": true,
      "mac": true, "aliases": true, "cgroupPath": true, "io.kubernetes.cri.pod-annotations": true}})");
  auto config = PodConfig();
  auto* port = config.add_port_mappings();
  port->set_protocol(runtime::v1::SCTP);
  port->set_container_port(80);
  port->set_host_port(8080);
  port->set_host_ip("10.1.1.1");
  config.mutable_dns_config()->add_servers("10.0.0.53");
  config.mutable_dns_config()->add_searches("cluster.local");
  config.mutable_dns_config()->add_options("ndots:5");
  config.mutable_linux()->set_cgroup_parent("/kubepods/pod1");
  const nlohmann::json annotations = {{"kubernetes.io/ingress-bandwidth", "1M"},
                                      {"kubernetes.io/egress-bandwidth", "2M"},
                                      {"crisp.network/ips", "10.9.8.7/24,fd00::7/64"},
                                      {"crisp.network/mac", "02:00:00:00:00:07"},
                                      {"crisp.network/aliases", "web,www"}};
  for (const auto& [key, value] : annotations.items()) {
    (*config.mutable_annotations())[key] = value.get<std::string>();
  }
  REQUIRE(net.networks->Attach(net.Call(), kPod, config).ok());
  const auto input = json::Parse(net.root.Read("log/all.ADD.stdin"));
  REQUIRE(input.ok());
  constexpr int kBurst = 2147483647;
  const nlohmann::json expected = {
      {"portMappings",
       {{{"hostPort", 8080}, {"containerPort", 80}, {"protocol", "sctp"}, {"hostIP", "10.1.1.1"}}}},
      {"bandwidth",
       {{"ingressRate", 1'000'000},
        {"ingressBurst", kBurst},
        {"egressRate", 2'000'000},
        {"egressBurst", kBurst}}},
      {"dns",
       {{"servers", {"10.0.0.53"}}, {"searches", {"cluster.local"}}, {"options", {"ndots:5"}}}},
      {"ips", {"10.9.8.7/24", "fd00::7/64"}},
      {"mac", "02:00:00:00:00:07"},
      {"aliases", {"web", "www"}},
      {"cgroupPath", "/kubepods/pod1"},
      {"io.kubernetes.cri.pod-annotations", annotations}};
  CHECK((*input)["runtimeConfig"] == expected);
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  CHECK(json::Parse(net.root.Read("log/all.DEL.stdin"))->at("runtimeConfig") == expected);
}

TEST_CASE("Plugins find the sysctls of the pod and of the node set, the pod's before the node's") {
  TestNet net;
  net.config.sysctls = {{"net.core.somaxconn", "321"}, {"net.ipv4.ip_forward", "0"}};
  Healthy(net);
  Plugin(net, "one",
         fmt::format("nsenter --net=$CNI_NETNS cat /proc/sys/net/core/somaxconn "
                     "/proc/sys/net/ipv4/ip_forward > {}; {}",
                     net.root / "seen", kAddress));
  net.Restart();
  auto config = PodConfig();
  (*config.mutable_linux()->mutable_sysctls())["net.ipv4.ip_forward"] = "1";
  REQUIRE(net.networks->Attach(net.Call(), kPod, config).ok());
  CHECK(net.root.Read("seen") == "321\n1\n");
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
}

TEST_CASE("DEL of old plugins gets no prevResult") {
  TestNet net;
  Healthy(net);
  Chain(net, "0.3.1");
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  CHECK_FALSE(json::Parse(net.root.Read("log/one.DEL.stdin"))->contains("prevResult"));
}

TEST_CASE("A failed ADD is undone, and the plugin's own words come out") {
  TestNet net;
  Healthy(net);
  Plugin(net, "two", R"(echo '{"code": 7, "msg": "no room", "details": "subnet full"}'; exit 1)");
  const auto network = net.networks->Attach(net.Call(), kPod, PodConfig());
  CHECK(network.code() == Code::kInternal);
  CHECK(network.status().message() ==
        "network 'test': plugin two: ADD failed: no room; subnet full");
  CHECK(Calls(net) == kAdded + kDeleted);
  CHECK_FALSE(os::Exists(net.config.layout.NetnsPath(kPod)));
  CHECK(net.store->List().value().empty());
}

TEST_CASE("A plugin that dies or talks nonsense is an error with what it said") {
  TestNet net;
  Healthy(net);
  Plugin(net, "two", "echo crashed here >&2; kill -9 $$");
  auto network = net.networks->Attach(net.Call(), kPod, PodConfig());
  CHECK(network.code() == Code::kInternal);
  CHECK(network.status().message().find("crashed here") != std::string::npos);
  for (const char* nonsense :
       {"echo garbage", "true", "echo '[]'", R"(echo '{"ips": [{"address": "x"}]}')",
        "head -c 3000000 /dev/zero"}) {
    Plugin(net, "two", nonsense);
    network = net.networks->Attach(net.Call(), kPod, PodConfig());
    INFO(nonsense);
    CHECK_FALSE(network.ok());
    CHECK(net.store->List().value().empty());
  }
}

TEST_CASE("A plugin that hangs in ADD is ended at the deadline, then undone") {
  TestNet net;
  net.config.attach_timeout = 2s;  // the plugin before it needs a moment on a busy machine
  Healthy(net);
  Plugin(net, "two", "trap '' TERM; sleep 100; sleep 100");
  net.Restart();
  const auto network = net.networks->Attach(net.Call(), kPod, PodConfig());
  CHECK(network.code() == Code::kDeadlineExceeded);
  CHECK(network.status().message().find("plugin two") != std::string::npos);
  CHECK(Calls(net) == kAdded + kDeleted);
  CHECK(net.store->List().value().empty());
}

TEST_CASE("A failed DEL keeps the record, calls all plugins, and Reconcile tries again") {
  TestNet net;
  Healthy(net);
  const std::string broken = net.root.Write("broken", "");
  Plugin(net, "two", kAddress,
         fmt::format(R"(test ! -e {} || {{ echo '{{"msg": "busy"}}'; exit 1; }})", broken));
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  const Status failed = net.networks->Detach(net.Call(), kPod);
  CHECK(failed.code() == Code::kInternal);
  CHECK(failed.message().find("busy") != std::string::npos);
  CHECK(Calls(net) == kAdded + kDeleted);
  CHECK(os::Exists(net.config.layout.NetnsPath(kPod)));
  CHECK(net.networks->Reconcile(net.Call(), {kPod}).value().empty());  // it is owed already
  CHECK(os::RemoveFile(broken).ok());
  CHECK(net.networks->RollBack(net.Call(), kPod).ok());
  CHECK(net.store->List().value().empty());
}

TEST_CASE("When ADD and its DEL fail the namespace goes at once and the record waits for a DEL") {
  TestNet net;
  Healthy(net);
  const std::string broken = net.root.Write("broken", "");
  Plugin(net, "two", "exit 1", fmt::format("test ! -e {}", broken));
  CHECK_FALSE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK_FALSE(os::Exists(net.config.layout.NetnsPath(kPod)));
  CHECK(net.store->List().value().size() == 1);
  CHECK(os::RemoveFile(broken).ok());
  CHECK(net.networks->Reconcile(net.Call(), {}).value().empty());  // it is owed already
  CHECK(net.networks->RollBack(net.Call(), kPod).ok());
  CHECK(net.store->List().value().empty());
}

TEST_CASE("Reconcile frees what nobody owns once it is old enough, and stray namespaces") {
  TestNet net;
  Healthy(net);
  net.config.orphan_grace = 1h;
  net.Restart();
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  REQUIRE(net.networks->Attach(net.Call(), kOtherPod, PodConfig()).ok());
  CHECK(net.networks->Reconcile(net.Call(), {kOtherPod}).value().empty());
  net.config.orphan_grace = 0s;
  net.Restart();
  const PodId stray(std::string(64, 'c'));
  {
    auto pins =
        os::NamespacePin::Create({{os::NamespaceKind::kNet, net.config.layout.NetnsPath(stray)}});
    REQUIRE(pins.ok());
    pins->front().Commit();
  }
  CHECK(net.networks->Reconcile(net.Call(), {kOtherPod}).value() == std::vector<PodId>{kPod});
  CHECK(net.networks->TakeDue() == std::vector<PodId>{kPod});
  CHECK(net.networks->RollBack(net.Call(), kPod).ok());
  CHECK_FALSE(net.store->Get(kPod).value().has_value());
  CHECK_FALSE(os::Exists(net.config.layout.NetnsPath(stray)));
  CHECK(os::IsPinnedNamespace(net.config.layout.NetnsPath(kOtherPod)).value());
}

TEST_CASE("A crash before ADD was recorded is rolled back at the next start") {
  TestNet net;
  Healthy(net);
  CutOff(net);
  CHECK(net.networks->Unfinished().value() == std::vector<PodId>{kPod});
  CHECK(net.networks->RollBack(net.Call(), kPod).ok());
  CHECK(Calls(net) == kAdded + kDeleted);
  CHECK(net.store->List().value().empty());
  CHECK(net.networks->RollBack(net.Call(), kPod).ok());
}

TEST_CASE("Attach of a pod whose earlier attempt was cut off begins with DEL") {
  TestNet net;
  Healthy(net);
  CutOff(net);
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK(Calls(net) == kAdded + kDeleted + kAdded);
  // A roll back that comes late finds nothing to do.
  CHECK(net.networks->RollBack(net.Call(), kPod).ok());
  CHECK(net.store->Get(kPod).value()->phase == Phase::kAttached);
}

TEST_CASE("What another instance is in the middle of is not rolled back") {
  TestNet net;
  Healthy(net);
  CutOff(net);
  net.config.instance = "2";
  net.Restart();
  CHECK(net.networks->Unfinished().value().empty());
}

TEST_CASE("After a reboot DEL runs with an empty namespace, so that the addresses come back") {
  TestNet net;
  Healthy(net);
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK(os::UnpinNamespace(net.config.layout.NetnsPath(kPod)).ok());
  net.Restart("boot-2");
  CHECK(net.networks->Unfinished().value() == std::vector<PodId>{kPod});
  CHECK(net.networks->RollBack(net.Call(), kPod).ok());
  CHECK(Calls(net) == kAdded + "DEL two \nDEL one \n");
  CHECK(net.store->List().value().empty());
}

TEST_CASE("What is not ready is said, and a pod gets no network") {
  TestNet net;
  CHECK(net.readiness->Look(net.Call()).code() == Code::kUnavailable);
  CHECK(net.networks->Attach(net.Call(), kPod, PodConfig()).code() == Code::kUnavailable);
  Chain(net);
  CHECK(net.readiness->Look(net.Call()).message().find("'one'") != std::string::npos);
  CHECK_FALSE(net.readiness->State(net.Call()).ready);
  CHECK(net.networks->Attach(net.Call(), kPod, PodConfig()).code() == Code::kUnavailable);
  Healthy(net);
  CHECK(net.readiness->Look(net.Call()).ok());
  CHECK(net.readiness->State(net.Call()).network == "test");
}

TEST_CASE("Bad ids, sysctls and names are the caller's fault, and leave nothing") {
  TestNet net;
  Healthy(net);
  CHECK(net.networks->Attach(net.Call(), PodId("../x"), PodConfig()).code() ==
        Code::kInvalidArgument);
  CHECK(net.networks->Detach(net.Call(), PodId("")).code() == Code::kInvalidArgument);
  auto config = PodConfig();
  (*config.mutable_linux()->mutable_sysctls())["net.no.such"] = "1";
  CHECK_FALSE(net.networks->Attach(net.Call(), kPod, config).ok());
  CHECK(net.store->List().value().empty());
  CHECK_FALSE(os::Exists(net.config.layout.NetnsPath(kPod)));
}

TEST_CASE("DEL of an ADD that ended half-way gets the result as far as it had come") {
  TestNet net;
  Healthy(net);
  const auto told = [&net](const char* plugin) {
    return json::Parse(net.root.Read(fmt::format("log/{}.DEL.stdin", plugin))).value();
  };
  Plugin(net, "two", "exit 1");
  CHECK_FALSE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  for (const char* plugin : {"one", "two"}) {
    CHECK(told(plugin)["prevResult"]["ips"][0]["address"] == "10.9.8.7/24");
  }
  Plugin(net, "one", "exit 1");
  CHECK_FALSE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK_FALSE(told("two").contains("prevResult"));
  // Over a kill, too.
  Healthy(net);
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  Attachment row = net.store->Get(kPod).value().value();
  CHECK(row.partial.empty());
  row.phase = Phase::kAttaching;
  row.partial = std::exchange(row.result, {});
  REQUIRE(net.store->Put(row).ok());
  net.Restart();
  CHECK(net.networks->RollBack(net.Call(), kPod).ok());
  CHECK(told("one")["prevResult"]["ips"][0]["address"] == "10.9.8.7/24");
}

TEST_CASE("Calls for one pod go one after the other, and end in one attachment") {
  TestNet net;
  Healthy(net);
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&net, &good] {
      good += net.networks->Attach(net.Call(), kPod, PodConfig()).ok() ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(good == 8);
  CHECK(Calls(net) == kAdded);
}

TEST_CASE("The answer comes before what nobody waits for, and that comes before the next call") {
  TestNet net;
  Healthy(net);
  std::vector<std::string> ips;
  std::vector<std::string> cached = {"?"};
  const auto answer = [&net, &ips, &cached](const PodNetwork& network) {
    ips = network.ips;
    cached = net.Cached();
  };
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig(), {}, answer).ok());
  CHECK(ips == std::vector<std::string>{"10.9.8.7", "fd00::7"});
  CHECK(cached.empty());
  CHECK(net.Cached().size() == 1);
  // A failure is no answer.
  Plugin(net, "two", "exit 1");
  ips.clear();
  CHECK_FALSE(net.networks->Attach(net.Call(), kOtherPod, PodConfig(), {}, answer).ok());
  CHECK(ips.empty());
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
}

TEST_CASE("A result that a kill kept from the cache is in it after the next start") {
  TestNet net;
  Healthy(net);
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  const std::string file = "cache/results/" + net.Cached().at(0);
  const std::string whole = net.root.Read(file);
  const auto survives = [&net, &file, &whole] {
    net.Restart();
    REQUIRE(net.networks->Recover(net.Call()).ok());
    CHECK(net.root.Read(file) == whole);
  };
  CHECK(os::RemoveTree(net.root / "cache").ok());
  survives();
  net.root.Write(file, "");  // killed between open(2) and write(2)
  survives();
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  net.Restart();
  REQUIRE(net.networks->Recover(net.Call()).ok());
  CHECK(net.Cached().empty());
}

}  // namespace
}  // namespace crisp::netd
