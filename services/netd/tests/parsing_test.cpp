#include <catch2/catch.hpp>
#include <thread>

#include "libs/json/json.h"
#include "libs/testing/test_root.h"
#include "services/netd/core/conf_list.h"
#include "services/netd/core/pod_args.h"
#include "services/netd/core/result.h"

namespace crisp::netd {
namespace {

using namespace std::chrono_literals;

TEST_CASE("A conflist is a chain, a conf is a chain of one") {
  const auto list = ParseConfList(
      R"({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "a", "x": 1},
          {"type": "b", "capabilities": {"portMappings": true, "dns": false}}]})",
      "f");
  REQUIRE(list.ok());
  CHECK(list->name == "n");
  CHECK(list->cni_version == "1.0.0");
  REQUIRE(list->plugins.size() == 2);
  CHECK(list->plugins[1].Can("portMappings"));
  CHECK_FALSE(list->plugins[1].Can("dns"));
  CHECK_FALSE(list->plugins[0].Can("portMappings"));
  CHECK(ParseConfList(list->ToJson(), "")->plugins[0].conf["x"] == 1);
  const auto one = ParseConfList(R"({"name": "n", "type": "a"})", "f");
  REQUIRE(one.ok());
  CHECK(one->plugins.size() == 1);
  CHECK(one->cni_version == "0.3.1");
  CHECK(ParseConfList(R"({"name": "n", "type": "a", "cniVersion": "1.1.0"})", "")->cni_version ==
        "1.1.0");
  CHECK(ParseConfList(R"({"name": "n", "type": "a", "cniVersions": ["0.4.0", "1.0.0", "9.0"]})", "")
            ->cni_version == "1.0.0");
}

TEST_CASE("A conf that cannot be is refused with the reason") {
  for (const char* bad :
       {"", "[]", "{}", R"({"name": "n"})", R"({"name": "n", "plugins": []})",
        R"({"name": "n", "plugins": [{"type": "../sh"}]})", R"({"name": "n", "plugins": [{}]})",
        R"({"name": "n", "plugins": {}})", R"({"name": 1, "type": "a"})",
        R"({"name": "n", "type": "a", "cniVersion": "2.0.0"})", R"({"name": "n", "type": ".."})"}) {
    INFO(bad);
    CHECK(ParseConfList(bad, "f").code() == Code::kInvalidArgument);
  }
}

TEST_CASE("The first readable file is the network, and changes are seen") {
  const testing::TestRoot root;
  ConfSource source(root / "net.d", "");
  CHECK(source.Current().code() == Code::kUnavailable);
  root.Write("net.d/README", "not a conf");
  root.Write("net.d/05-broken.conf", "{");
  const auto none = source.Current();
  CHECK(none.code() == Code::kUnavailable);
  CHECK(none.status().message().find("05-broken.conf") != std::string::npos);
  root.Write("net.d/20-b.conf", R"({"name": "b", "type": "t"})");
  CHECK(source.Current().value()->name == "b");
  CHECK(source.Current().value() == source.Current().value());
  root.Write("net.d/10-a.conflist", R"({"name": "a", "plugins": [{"type": "t"}]})");
  CHECK(source.Current().value()->name == "a");
  root.Write("net.d/10-a.conflist", R"({"name": "a2", "plugins": [{"type": "t"}]})");
  CHECK(source.Current().value()->name == "a2");
  CHECK(LoadConfDir(root / "net.d", "b")->name == "b");
  CHECK(LoadConfDir(root / "net.d", "c").status().message().find("05-broken") != std::string::npos);
}

TEST_CASE("Who waits for a configuration gets it when it comes, or the reason in time") {
  const testing::TestRoot root;
  root.Write("net.d/README", "");
  ConfSource source(root / "net.d", "");
  CHECK(source.Wait(CallContext::Background(10s), 1ms).code() == Code::kUnavailable);
  std::thread writer([&root, &source] {
    root.Write("net.d/10-a.conf", R"({"name": "a", "type": "t"})");
    source.OnDirectoryChanged();
  });
  const auto found = source.Wait(CallContext::Background(10s), 10s);
  writer.join();
  REQUIRE(found.ok());
  CHECK((*found)->name == "a");
}

TEST_CASE("Addresses come in the result's order, without their prefix") {
  const auto result =
      json::Parse(R"({"ips": [{"address": "10.1.2.3/24"}, {"address": "fd00::5/64"}]})");
  CHECK(AddressesOf(*result).value() == std::vector<std::string>{"10.1.2.3", "fd00::5"});
  CHECK(AddressesOf(nlohmann::json::object()).value().empty());
  for (const char* bad : {R"({"ips": [{"address": "ten"}]})", R"({"ips": [{}]})", "[]"}) {
    CHECK(AddressesOf(*json::Parse(bad)).code() == Code::kInvalidArgument);
  }
}

TEST_CASE("Plugins are told the pod's names") {
  runtime::v1::PodSandboxConfig config;
  config.mutable_metadata()->set_name("web");
  config.mutable_metadata()->set_namespace_("shop");
  config.mutable_metadata()->set_uid("u-1");
  CHECK(CniArgsOf(PodId("abc"), config).value() ==
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=abc;"
        "K8S_POD_UID=u-1");
  config.mutable_metadata()->set_name("a;CNI=b");
  CHECK(CniArgsOf(PodId("abc"), config).code() == Code::kInvalidArgument);
}

TEST_CASE("Capabilities are fed from ports, annotations, DNS and cgroup") {
  runtime::v1::PodSandboxConfig config;
  CHECK(CapabilityArgsOf(config).value().empty());
  config.add_port_mappings()->set_container_port(80);
  CHECK(CapabilityArgsOf(config).value().empty());
  auto* port = config.add_port_mappings();
  port->set_container_port(53);
  port->set_host_port(5353);
  port->set_protocol(runtime::v1::UDP);
  port->set_host_ip("127.0.0.1");
  (*config.mutable_annotations())["kubernetes.io/ingress-bandwidth"] = "10M";
  (*config.mutable_annotations())["kubernetes.io/egress-bandwidth"] = "1Ki";
  config.mutable_dns_config()->add_servers("1.1.1.1");
  config.mutable_linux()->set_cgroup_parent("/kubepods/x");
  const auto args = CapabilityArgsOf(config);
  REQUIRE(args.ok());
  CHECK((*args)["portMappings"].dump() ==
        R"([{"containerPort":53,"hostIP":"127.0.0.1","hostPort":5353,"protocol":"udp"}])");
  CHECK((*args)["bandwidth"]["ingressRate"] == 10'000'000);
  CHECK((*args)["bandwidth"]["egressRate"] == 1024);
  CHECK((*args)["dns"]["servers"].dump() == R"(["1.1.1.1"])");
  CHECK((*args)["cgroupPath"] == "/kubepods/x");
  CHECK((*args)["io.kubernetes.cri.pod-annotations"].size() == 2);
  (*config.mutable_annotations())["kubernetes.io/egress-bandwidth"] = "fast";
  CHECK(CapabilityArgsOf(config).code() == Code::kInvalidArgument);
}

TEST_CASE("Quantities as Kubernetes writes them") {
  CHECK(ParseQuantity("10M").value() == 10'000'000);
  CHECK(ParseQuantity("1.5k").value() == 1500);
  CHECK(ParseQuantity("2e3").value() == 2000);
  CHECK(ParseQuantity("1Gi").value() == 1073741824);
  CHECK(ParseQuantity("100m").value() == 1);
  for (const char* bad : {"", "M", "-1", "1X", "1e30", "nan", "inf", "1 M"}) {
    INFO(bad);
    CHECK(ParseQuantity(bad).code() == Code::kInvalidArgument);
  }
}

TEST_CASE("Only the network's sysctls are netd's") {
  runtime::v1::PodSandboxConfig config;
  (*config.mutable_linux()->mutable_sysctls())["net.ipv4.ip_forward"] = "1";
  (*config.mutable_linux()->mutable_sysctls())["kernel.shmmax"] = "1";
  CHECK(NetSysctlsOf(config) == std::map<std::string, std::string>{{"net.ipv4.ip_forward", "1"}});
}

}  // namespace
}  // namespace crisp::netd
