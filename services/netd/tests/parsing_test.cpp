#include <catch2/catch.hpp>
#include <map>

#include "libs/json/json.h"
#include "libs/testing/manual_clock.h"
#include "libs/testing/test_root.h"
#include "services/netd/core/conf_dirs.h"
#include "services/netd/core/conf_list.h"
#include "services/netd/core/host_ports.h"
#include "services/netd/core/pod_args.h"
#include "services/netd/core/result.h"
#include "services/netd/core/retries.h"

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
        R"({"name": "n", "type": "a", "cniVersion": "2.0.0"})",
        R"({"name": "n", "type": "a", "cniVersions": ["2.0.0"]})",
        R"({"name": "../n", "type": "a"})", R"({"name": "", "type": "a"})",
        R"({"name": "n", "type": "a", "disableGC": 1})", R"({"name": "n", "type": ".."})",
        R"({"name": "n", "type": "a", "disableGC": "yes"})",
        R"({"name": "n", "type": "a", "disableCheck": ""})",
        R"({"name": "n", "type": "a", "loadOnlyInlinedPlugins": "no"})"}) {
    INFO(bad);
    CHECK(ParseConfList(bad, "f").code() == Code::kInvalidArgument);
  }
}

TEST_CASE("A flag is a boolean, or the word for one in letters of either case") {
  for (const char* yes : {"true", R"("true")", R"("True")", R"("TRUE")"}) {
    const auto list = ParseConfList(
        fmt::format(R"({{"name": "n", "type": "a", "disableGC": {0}, "disableCheck": {0}}})", yes),
        "f");
    INFO(yes);
    REQUIRE(list.ok());
    CHECK(list->disable_gc);
    CHECK(list->disable_check);
  }
  for (const char* no : {"false", R"("False")", "null"}) {
    CHECK_FALSE(
        ParseConfList(fmt::format(R"({{"name": "n", "type": "a", "disableGC": {}}})", no), "f")
            ->disable_gc);
  }
  const auto word = ParseConfList(R"({"name": "n", "type": "a", "disableGC": "yes"})", "f");
  CHECK(word.status().message() == "disableGC: true or false is expected, got 'yes'");
}

/// The system's clock, `later` ahead.
class AheadClock final : public Clock {
 public:
  explicit AheadClock(std::chrono::seconds ahead) : later(ahead) {}
  SteadyTime Now() const override { return System().Now() + later; }
  WallTime Wall() const override { return System().Wall() + later; }
  bool WaitUntil(std::unique_lock<std::mutex>& lock, std::condition_variable_any& changed,
                 SteadyTime deadline, const std::function<bool()>& done) override {
    return System().WaitUntil(lock, changed, deadline - later, done);
  }
  std::chrono::seconds later;
};

TEST_CASE("The first readable file is the network, and changes are seen") {
  const testing::TestRoot root;
  const AheadClock clock(std::chrono::hours(1));  // the files have been there for long
  ConfSource source({root / "net.d"}, "", clock);
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
  CHECK(ConfSource({root / "net.d"}, "b", clock).Current().value()->name == "b");
  CHECK(ConfSource({root / "net.d"}, "c", clock).Current().status().message().find("05-broken") !=
        std::string::npos);
}

TEST_CASE("The first directory with a usable network wins; an absent one is passed over") {
  const testing::TestRoot root;
  const std::vector<std::string> dirs = {root / "none", root / "a", root / "b"};
  root.Write("b/10-b.conf", R"({"name": "b", "type": "t"})");
  const AheadClock clock(std::chrono::hours(1));  // the files have been there for long
  ConfSource source(dirs, "", clock);
  CHECK(source.Current().value()->name == "b");
  root.Write("a/99-a.conf", R"({"name": "a", "type": "t"})");
  CHECK(source.Current().value()->name == "a");
  root.Write("a/98-a.conf", "{");
  CHECK(source.Current().value()->name == "a");
  CHECK(ConfSource(dirs, "b", clock).Current().value()->name == "b");
  CHECK(ConfSource({root / "none"}, "", clock).Current().code() == Code::kUnavailable);
}

TEST_CASE("A broken file that has just changed is waited for, not passed over") {
  const testing::TestRoot root;
  AheadClock clock(std::chrono::seconds(0));
  root.Write("net.d/20-b.conf", R"({"name": "b", "type": "t"})");
  root.Write("net.d/10-a.conf", R"({"name": "a", )");
  ConfSource source({root / "net.d"}, "", clock);
  const auto early = source.Current();
  CHECK(early.code() == Code::kUnavailable);
  CHECK(early.status().message().find("10-a.conf") != std::string::npos);
  // Nothing changes any more but its age.
  clock.later = std::chrono::seconds(3);
  CHECK(source.Current().value()->name == "b");
  root.Write("net.d/10-a.conf", R"({"name": "a", "type": "t"})");
  CHECK(source.Current().value()->name == "a");
}

TEST_CASE("A file that is broken again and again keeps the next one out for a while only") {
  const testing::TestRoot root;
  AheadClock clock(0s);
  root.Write("net.d/20-b.conf", R"({"name": "b", "type": "t"})");
  root.Write("net.d/10-a.conf", "{");
  ConfSource source({root / "net.d"}, "", clock, 1s);
  CHECK(source.Current().code() == Code::kUnavailable);
  root.Write("net.d/10-a.conf", "{{");
  CHECK(source.Current().code() == Code::kUnavailable);
  // It may still be half written, but that has been so for long.
  clock.later = 1s;
  root.Write("net.d/10-a.conf", "{{{");
  const auto next = source.Current();
  REQUIRE(next.ok());
  CHECK((*next)->name == "b");
  CHECK(source.Current().value() == *next);
  root.Write("net.d/10-a.conf", R"({"name": "a", "type": "t"})");
  CHECK(source.Current().value()->name == "a");
}

TEST_CASE("A list's further plugins are in files of their own, in a folder of its name") {
  const testing::TestRoot root;
  const AheadClock clock(std::chrono::hours(1));  // the files have been there for long
  ConfSource source({root / "net.d"}, "", clock);
  const auto types = [&source] {
    std::string all;
    const auto list = source.Current();
    if (!list.ok()) return list.status().message();
    for (const ConfList::Plugin& plugin : (*list)->plugins) all += plugin.type + " ";
    return all;
  };
  const auto list = [&root](const std::string& more) {
    root.Write("net.d/10-n.conflist", R"({"cniVersion": "1.1.0", "name": "n")" + more + "}");
  };
  list("");
  CHECK(types().find("network 'n' has no plugins") != std::string::npos);
  root.Write("net.d/n/20-two.conf", R"({"type": "two"})");
  root.Write("net.d/n/10-one.conf", R"({"type": "one", "x": 1})");
  root.Write("net.d/n/30-other.json", "no plugin");
  root.Write("net.d/m/10-m.conf", "another network's");
  CHECK(types() == "one two ");
  list(R"(, "plugins": [{"type": "own"}])");
  CHECK(types() == "own one two ");
  root.Write("net.d/n/15-three.conf", R"({"type": "three"})");
  CHECK(types() == "own one three two ");
  // All of them are told to the plugins of DEL, whatever is in the folder then.
  CHECK(ParseConfList(source.Current().value()->ToJson(), "")->plugins.size() == 4);
  root.Write("net.d/n/15-three.conf", R"({"typ": "three"})");
  CHECK(types().find("n/15-three.conf: type") != std::string::npos);
  list(R"(, "loadOnlyInlinedPlugins": true, "plugins": [{"type": "own"}])");
  CHECK(types() == "own ");
  list(R"(, "loadOnlyInlinedPlugins": true)");
  CHECK(types().find("network 'n' has no plugins") != std::string::npos);
  // A single plugin's file is no list.
  list(R"(, "type": "own")");
  CHECK(types() == "own ");
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
  port->set_host_ip("here");
  CHECK(CapabilityArgsOf(config).code() == Code::kInvalidArgument);
  port->set_host_ip("::1");
  (*config.mutable_annotations())["kubernetes.io/egress-bandwidth"] = "fast";
  CHECK(CapabilityArgsOf(config).code() == Code::kInvalidArgument);
}

TEST_CASE("A pod's own addresses come from its annotations") {
  runtime::v1::PodSandboxConfig config;
  auto& annotations = *config.mutable_annotations();
  annotations["crisp.network/ips"] = "10.1.2.3/24, fd00::3";
  annotations["crisp.network/mac"] = "02:00:00:00:00:0A";
  annotations["crisp.network/aliases"] = "web,www";
  const auto args = CapabilityArgsOf(config);
  REQUIRE(args.ok());
  CHECK((*args)["ips"].dump() == R"(["10.1.2.3/24","fd00::3"])");
  CHECK((*args)["mac"] == "02:00:00:00:00:0A");
  CHECK((*args)["aliases"].dump() == R"(["web","www"])");
  for (const auto& [key, bad] : std::multimap<std::string, std::string>{
           {"ips", "10.1.2.3,"}, {"ips", "ten"}, {"mac", "02:00"}, {"mac", "02:00:00:00:00:xx"}}) {
    config.clear_annotations();
    (*config.mutable_annotations())["crisp.network/" + key] = bad;
    INFO(key << " " << bad);
    CHECK(CapabilityArgsOf(config).code() == Code::kInvalidArgument);
  }
}

TEST_CASE("A result is handed on in the version that the configuration speaks") {
  const auto as = [](const char* text, const char* version) {
    auto result = ResultAs(json::Parse(text).value(), version);
    return result.ok() ? json::Dump(*result) : "";
  };
  const char* one = R"({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"},
                        {"address": "fd00::2/64"}]})";
  CHECK(as(one, "1.1.0") ==
        R"({"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/24"},{"address":"fd00::2/64"}]})");
  CHECK(as(one, "0.4.0") ==
        R"({"cniVersion":"0.4.0","ips":[{"address":"10.0.0.2/24","version":"4"},)"
        R"({"address":"fd00::2/64","version":"6"}]})");
  CHECK(as(R"({"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.0.0.2/24"}]})",
           "1.0.0") == R"({"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}]})");
  CHECK(as(R"({"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1",
               "routes": [{"dst": "0.0.0.0/0"}]}})",
           "1.0.0") == R"({"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24","gateway":)"
                       R"("10.0.0.1"}],"routes":[{"dst":"0.0.0.0/0"}]})");
  CHECK(as(R"({"ips": []})", "1.0.0") == R"({"cniVersion":"1.0.0","ips":[]})");
  CHECK(as(R"({"cniVersion": "9.0.0"})", "1.0.0").empty());
  CHECK(as(R"({"ips": [{}]})", "1.0.0").empty());
  CHECK(as(R"({"ips": {}})", "1.0.0").empty());
}

TEST_CASE("Builtin ports become elements: the first address of a family, one host address or all") {
  Attachment attachment;
  attachment.capability_args = R"({"crisp.hostports": [
      {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
      {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "192.0.2.7"},
      {"hostPort": 54, "containerPort": 54, "protocol": "sctp", "hostIP": "::"}]})";
  CHECK(PortElementsOf(attachment).value().empty());  // it has no address yet
  attachment.result = R"({"ips": [{"address": "10.1.2.3/24"}, {"address": "10.9.9.9/24"},
                                  {"address": "fd00::3/64"}]})";
  const auto elements = PortElementsOf(attachment);
  REQUIRE(elements.ok());
  std::string text;
  for (const PortElement& element : *elements) {
    text += fmt::format("{}: {} -> {}\n", element.map, element.key, element.value);
  }
  CHECK(text ==
        "any4: tcp . 8080 -> 10.1.2.3 . 80\n"
        "at4: 192.0.2.7 . udp . 53 -> 10.1.2.3 . 5353\n"
        "near4: 10.1.2.3/24 . 10.1.2.3 -> \n"
        "any6: tcp . 8080 -> fd00::3 . 80\n"
        "any6: sctp . 54 -> fd00::3 . 54\n"
        "near6: fd00::3/64 . fd00::3 -> \n");
  attachment.capability_args = R"({"portMappings": [{"hostPort": 1}]})";
  CHECK(PortElementsOf(attachment).value().empty());
  attachment.capability_args = R"({"crisp.hostports": [{"hostPort": 1, "hostIP": "x; flush"}]})";
  CHECK(PortElementsOf(attachment).code() == Code::kInvalidArgument);
}

TEST_CASE("What is owed is tried again with growing pauses") {
  testing::ManualClock clock;
  Retries retries(clock);
  const PodId pod("ab");
  retries.Add(pod);
  CHECK(retries.TakeDue() == std::vector<PodId>{pod});
  CHECK(retries.TakeDue().empty());  // somebody is at it
  for (const auto pause : {1s, 2s, 4s, 8s}) {
    retries.Failed(pod);
    clock.Advance(pause - 1ms);
    CHECK(retries.TakeDue().empty());
    clock.Advance(1ms);
    CHECK(retries.TakeDue() == std::vector<PodId>{pod});
  }
  for (int i = 0; i < 40; ++i) retries.Failed(pod);
  clock.Advance(5min);
  CHECK(retries.TakeDue().size() == 1);
  CHECK(retries.size() == 1);
  retries.Done(pod);
  CHECK(retries.size() == 0);
}

TEST_CASE("Only the network's sysctls are netd's, and the pod's go before the node's") {
  runtime::v1::PodSandboxConfig config;
  (*config.mutable_linux()->mutable_sysctls())["net.ipv4.ip_forward"] = "1";
  (*config.mutable_linux()->mutable_sysctls())["kernel.shmmax"] = "1";
  auto& sysctls = *config.mutable_linux()->mutable_sysctls();
  sysctls["net.ipv4.conf.all.rp_filter"] = "0";
  sysctls["net.ipv4.conf.eth0.rp_filter"] = "2";
  sysctls["net/ipv6/neigh/eth0.1/retrans_time_ms"] = "7";
  const NetSysctls found = NetSysctlsOf(
      config,
      {{"net.core.somaxconn", "9"}, {"kernel.msgmax", "9"}, {"net.ipv4.conf.all.rp_filter", "9"}});
  using Map = std::map<std::string, std::string>;
  CHECK(found.early == Map{{"net.core.somaxconn", "9"},
                           {"net.ipv4.conf.all.rp_filter", "0"},
                           {"net.ipv4.ip_forward", "1"}});
  // What belongs to an interface can only be set when the plugins have made it.
  CHECK(found.late ==
        Map{{"net.ipv4.conf.eth0.rp_filter", "2"}, {"net/ipv6/neigh/eth0.1/retrans_time_ms", "7"}});
}

}  // namespace
}  // namespace crisp::netd
