// The network as a whole, with plugins that are scripts: versions, STATUS, CHECK, GC, what is owed
// when DEL cannot be done, user namespaces. Needs root: the namespaces are real.
#include <signal.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <thread>

#include "libs/json/json.h"
#include "libs/os/namespaces.h"
#include "libs/os/proc_stat.h"
#include "libs/process/command.h"
#include "libs/testing/manual_clock.h"
#include "services/netd/tests/fake_plugins.h"
#include "services/netd/tests/test_net.h"

namespace crisp::netd {
namespace {

using namespace std::chrono_literals;

void Versions(const TestNet& net, const std::string& name, const std::string& versions) {
  net.root.Script("bin/" + name, fmt::format(R"(echo $CNI_COMMAND >> {}
echo '{{"cniVersion": "1.0.0", "supportedVersions": [{}], "ips": []}}'
)",
                                             net.root / ("log/" + name), versions));
}

TEST_CASE("The highest version that the file offers and all plugins speak is spoken") {
  TestNet net;
  CHECK(os::MakeDirs(net.root / "log").ok());
  Versions(net, "one", R"("0.4.0", "1.0.0", "1.1.0")");
  Versions(net, "two", R"("0.3.1", "0.4.0", "1.0.0")");
  net.root.Write("conf/10-t.conflist", R"({"name": "t", "cniVersion": "1.1.0",
      "cniVersions": ["0.4.0", "1.0.0", "1.1.0"], "plugins": [{"type": "one"}, {"type": "two"}]})");
  const auto list = net.readiness->Wait(net.Call(), 0s);
  INFO(list.status().ToString());
  REQUIRE(list.ok());
  CHECK((*list)->cni_version == "1.0.0");
  // A program is asked once.
  REQUIRE(net.readiness->Look(net.Call()).ok());
  CHECK(net.root.Read("log/two") == "VERSION\n");

  net.root.Write("conf/10-t.conflist", R"({"name": "t", "cniVersion": "1.1.0",
      "plugins": [{"type": "one"}, {"type": "two"}]})");
  const auto none = net.networks->Attach(net.Call(), kPod, PodConfig());
  CHECK(none.code() == Code::kUnavailable);
  CHECK(none.status().message() ==
        "network 't': plugin two speaks CNI 0.3.1, 0.4.0, 1.0.0, the configuration offers 1.1.0");
  // Another program of that name is asked anew.
  Versions(net, "two", R"("1.0.0", "1.1.0")");
  CHECK(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
}

TEST_CASE("STATUS of CNI 1.1 decides, pods wait for it, and its words come out") {
  TestNet net;
  net.config.network_wait = 10s;
  Healthy(net);
  Chain(net, "1.1.0");
  const std::string sick = net.root.Write("sick", "");
  Plugin(
      net, "two", kAddress, ":",
      fmt::format(R"(test ! -e {} || {{ echo '{{"code": 50, "msg": "agent is away"}}'; exit 1; }})",
                  sick));
  net.Restart();
  const Status looked = net.readiness->Look(net.Call());
  CHECK(looked.code() == Code::kUnavailable);
  CHECK(looked.message() == "network 'test': plugin two: STATUS failed: agent is away");
  const NetworkState state = net.readiness->State(net.Call());
  CHECK_FALSE(state.ready);
  CHECK(state.message == looked.message());
  std::optional<Result<PodNetwork>> attached;
  std::jthread pod([&] { attached = net.networks->Attach(net.Call(), kPod, PodConfig()); });
  CHECK(os::RemoveFile(sick).ok());
  net.readiness->Wake();
  pod.join();
  INFO(attached->status().ToString());
  CHECK(attached->ok());
  CHECK(net.readiness->State(net.Call()).ready);
  const std::string env = net.root.Read("log/two.STATUS.env");
  CHECK(env.find("CNI_PATH=") != std::string::npos);
  CHECK(env.find("CNI_CONTAINERID") == std::string::npos);
  CHECK(json::Parse(net.root.Read("log/two.STATUS.stdin"))->at("name") == "test");
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
}

TEST_CASE("Plugins of CNI 1.0 are not asked for STATUS and GC") {
  TestNet net;
  Healthy(net);
  REQUIRE(net.readiness->Look(net.Call()).ok());
  CHECK(net.networks->CollectGarbage(net.Call()).ok());
  CHECK(Calls(net).empty());
}

TEST_CASE("A network that was ready counts as ready for the grace, then no longer") {
  TestNet net;
  Healthy(net);
  testing::ManualClock clock;
  Readiness readiness(*net.conf, *net.plugins, clock, {.grace = 60s});
  CHECK(readiness.State(net.Call()).ready);
  CHECK(os::RemoveFile(net.root / "bin/two").ok());
  CHECK_FALSE(readiness.Look(net.Call()).ok());
  clock.Advance(59s);
  CHECK_FALSE(readiness.Look(net.Call()).ok());
  NetworkState state = readiness.State(net.Call());
  CHECK(state.ready);
  CHECK(state.in_grace);
  CHECK(state.network == "test");
  CHECK(state.message.find("'two'") != std::string::npos);
  clock.Advance(1s);
  state = readiness.State(net.Call());
  CHECK_FALSE(state.ready);
  CHECK_FALSE(state.in_grace);
  Plugin(net, "two", kAddress);
  CHECK(readiness.Look(net.Call()).ok());
  CHECK(readiness.State(net.Call()).ready);
  // A new failure has a new grace.
  CHECK(os::RemoveTree(net.root / "conf").ok());
  CHECK_FALSE(readiness.Look(net.Call()).ok());
  CHECK(readiness.State(net.Call()).in_grace);
}

TEST_CASE("There is no grace for what was never ready") {
  TestNet net;
  testing::ManualClock clock;
  Readiness readiness(*net.conf, *net.plugins, clock, {.grace = 60s});
  CHECK_FALSE(readiness.State(net.Call()).ready);
}

TEST_CASE("After a restart of netd alone a network with pods on it has its grace") {
  TestNet net;
  net.config.status_grace = 600s;
  Healthy(net);
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK(os::Rename(net.root / "conf", net.root / "aside").ok());
  net.Restart();
  REQUIRE(net.networks->Recover(net.Call()).ok());
  CHECK_FALSE(net.readiness->Look(net.Call()).ok());
  CHECK(net.readiness->State(net.Call()).in_grace);
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  net.Restart();
  REQUIRE(net.networks->Recover(net.Call()).ok());
  CHECK_FALSE(net.readiness->State(net.Call()).ready);
}

TEST_CASE("Who waits for a network gets it when it comes, or the reason in time") {
  TestNet net;
  CHECK(net.readiness->Wait(net.Call(), 1ms).code() == Code::kUnavailable);
  std::thread writer([&net] {
    Healthy(net);
    net.readiness->Wake();
  });
  const auto found = net.readiness->Wait(net.Call(), 10s);
  writer.join();
  REQUIRE(found.ok());
  CHECK((*found)->name == "test");
}

TEST_CASE("CHECK asks the plugins in order, with the result") {
  TestNet net;
  Healthy(net);
  CHECK(net.networks->Check(net.Call(), kPod).code() == Code::kNotFound);
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK(net.networks->Check(net.Call(), kPod).value());
  CHECK(Calls(net) == "ADD one NS\nADD two NS\nCHECK one NS\nCHECK two NS\n");
  const auto input = json::Parse(net.root.Read("log/one.CHECK.stdin"));
  REQUIRE(input.ok());
  CHECK((*input)["prevResult"]["ips"][0]["address"] == "10.9.8.7/24");
  Plugin(net, "one", kAddress, ":", R"(echo '{"msg": "the route is gone"}'; exit 1)");
  const Status bad = net.networks->Check(net.Call(), kPod).status();
  CHECK(bad.code() == Code::kInternal);
  CHECK(bad.message() == "network 'test': plugin one: CHECK failed: the route is gone");
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
}

TEST_CASE("Where the network has no CHECK nobody is asked, and that is said") {
  TestNet net;
  Healthy(net);
  Chain(net, "0.3.1");
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK_FALSE(net.networks->Check(net.Call(), kPod).value());
  net.root.Write("conf/10-test.conflist", R"({"cniVersion": "1.0.0", "name": "test",
      "disableCheck": "True", "plugins": [{"type": "one"}]})");
  REQUIRE(net.networks->Attach(net.Call(), kOtherPod, PodConfig()).ok());
  CHECK_FALSE(net.networks->Check(net.Call(), kOtherPod).value());
  CHECK(Calls(net).find("CHECK") == std::string::npos);
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  CHECK(net.networks->Detach(net.Call(), kOtherPod).ok());
}

TEST_CASE("GC is not asked for where the file says so, in whatever letters") {
  TestNet net;
  Healthy(net);
  net.root.Write("conf/10-test.conflist", R"({"cniVersion": "1.1.0", "name": "test",
      "disableGC": "True", "plugins": [{"type": "one"}]})");
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK(net.networks->CollectGarbage(net.Call()).ok());
  CHECK(Calls(net).find("GC") == std::string::npos);
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
}

TEST_CASE("GC tells the plugins which attachments live, and not while one is under way") {
  TestNet net;
  Healthy(net);
  Chain(net, "1.1.0");
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  REQUIRE(net.networks->Attach(net.Call(), kOtherPod, PodConfig()).ok());
  REQUIRE(net.networks->Detach(net.Call(), kOtherPod).ok());
  CHECK_FALSE(net.networks->Reconciled());
  const Status done = net.networks->CollectGarbage(net.Call());
  INFO(done.ToString());
  CHECK(done.ok());
  const auto input = json::Parse(net.root.Read("log/two.GC.stdin"));
  REQUIRE(input.ok());
  const nlohmann::json alive = {{{"containerID", kPod.str()}, {"ifname", "eth0"}}};
  CHECK((*input)["cni.dev/valid-attachments"] == alive);
  CHECK((*input)["cni.dev/attachments"] == alive);
  CHECK(net.root.Read("log/two.GC.env").find("CNI_CONTAINERID") == std::string::npos);

  Plugin(net, "two",
         fmt::format("touch {0}/in; while test ! -e {0}/go; do sleep 0.01; done; {1}",
                     net.root.path(), kAddress));
  std::jthread slow(
      [&net] { CHECK(net.networks->Attach(net.Call(), kOtherPod, PodConfig()).ok()); });
  while (!os::Exists(net.root / "in")) std::this_thread::yield();
  CHECK(net.networks->CollectGarbage(CallContext::Background(50ms)).code() == Code::kUnavailable);
  net.root.Write("go", "");
  slow.join();
  CHECK(net.networks->CollectGarbage(net.Call()).ok());
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  CHECK(net.networks->Detach(net.Call(), kOtherPod).ok());
}

TEST_CASE("A plugin that is no longer installed keeps no pod; its DEL is owed until it is back") {
  TestNet net;
  Healthy(net);
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK(os::Rename(net.root / "bin/two", net.root / "two").ok());
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  CHECK_FALSE(os::Exists(net.config.layout.NetnsPath(kPod)));
  CHECK(Calls(net) == "ADD one NS\nADD two NS\nDEL one NS\n");
  CHECK(net.networks->Owed() == 1);
  CHECK(net.store->List().value().size() == 1);
  // Also over a restart.
  net.Restart();
  REQUIRE(net.networks->Recover(net.Call()).ok());
  CHECK(os::Rename(net.root / "two", net.root / "bin/two").ok());
  REQUIRE(net.networks->TakeDue() == std::vector<PodId>{kPod});
  CHECK(net.networks->RollBack(net.Call(), kPod).ok());
  CHECK(Calls(net) == "ADD one NS\nADD two NS\nDEL one NS\nDEL two \nDEL one \n");
  CHECK(net.networks->Owed() == 0);
  CHECK(net.store->List().value().empty());
  CHECK(net.Cached().empty());
}

TEST_CASE("A DEL that fails after the namespace is gone is owed, not the caller's") {
  TestNet net;
  Healthy(net);
  const std::string broken = net.root.Write("broken", "");
  Plugin(net, "two", kAddress, fmt::format("test ! -e {}", broken));
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK(os::UnpinNamespace(net.config.layout.NetnsPath(kPod)).ok());
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  CHECK(net.networks->Owed() == 1);
  CHECK(os::RemoveFile(broken).ok());
  CHECK(net.networks->RollBack(net.Call(), kPod).ok());
  CHECK(net.networks->Owed() == 0);
  CHECK(net.store->List().value().empty());
}

TEST_CASE("What a plugin that was ended has started is ended too, even out of its group") {
  TestNet net;
  net.config.attach_timeout = 500ms;
  Healthy(net);
  Plugin(net, "two", fmt::format("setsid sleep 100 & echo $! > {}; sleep 100", net.root / "pid"));
  net.Restart();
  CHECK(net.networks->Attach(net.Call(), kPod, PodConfig()).code() == Code::kDeadlineExceeded);
  const pid_t orphan = std::stoi(net.root.Read("pid"));
  CHECK_FALSE(os::Alive(os::ProcessId::Of(orphan).value_or({})));
  CHECK(net.store->List().value().empty());
}

TEST_CASE("An ADD that succeeds after the deadline leaves nothing") {
  TestNet net;
  net.config.attach_timeout = 300ms;
  Healthy(net);
  Plugin(net, "two", fmt::format("trap '' TERM; {}; sleep 100", kAddress));
  net.Restart();
  CHECK(net.networks->Attach(net.Call(), kPod, PodConfig()).code() == Code::kDeadlineExceeded);
  CHECK(Calls(net) == "ADD one NS\nADD two NS\nDEL two NS\nDEL one NS\n");
  CHECK_FALSE(os::Exists(net.config.layout.NetnsPath(kPod)));
  CHECK(net.store->List().value().empty());
}

TEST_CASE("Sysctls of an interface are set once the plugins have made it") {
  TestNet net;
  Healthy(net);
  Plugin(net, "two",
         "nsenter --net=$CNI_NETNS ip link add eth0 type veth peer name far; " + kAddress);
  auto config = PodConfig();
  (*config.mutable_linux()->mutable_sysctls())["net.ipv4.conf.eth0.rp_filter"] = "2";
  const auto network = net.networks->Attach(net.Call(), kPod, config);
  INFO(network.status().ToString());
  REQUIRE(network.ok());
  std::string value;
  const auto read = [&value] {
    value = os::ReadFile("/proc/sys/net/ipv4/conf/eth0/rp_filter").value_or("");
    return Status::Ok();
  };
  CHECK(os::RunInNamespace(network->netns_path, read).ok());
  CHECK(value == "2\n");
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  // An interface that nobody makes is the pod's mistake, and is undone.
  (*config.mutable_linux()->mutable_sysctls())["net.ipv4.conf.eth7.rp_filter"] = "2";
  CHECK_FALSE(net.networks->Attach(net.Call(), kPod, config).ok());
  CHECK(net.store->List().value().empty());
  CHECK_FALSE(os::Exists(net.config.layout.NetnsPath(kPod)));
}

TEST_CASE("With a user namespace the network namespace belongs to it") {
  TestNet net;
  Healthy(net);
  auto owner = process::Spawn({.program = "/usr/bin/unshare",
                               .args = {"--user", "--map-root-user", "sleep", "60"},
                               .env = process::PlainEnvironment()});
  REQUIRE(owner.ok());
  const std::string userns = fmt::format("/proc/{}/ns/user", owner->pid());
  const std::string ours = os::ReadLink("/proc/self/ns/user").value();
  while (os::ReadLink(userns).value_or(ours) == ours) std::this_thread::yield();
  auto config = PodConfig();
  (*config.mutable_linux()->mutable_sysctls())["net.ipv4.ip_unprivileged_port_start"] = "81";
  const auto network = net.networks->Attach(net.Call(), kPod, config, userns);
  INFO(network.status().ToString());
  REQUIRE(network.ok());
  // Root of that user namespace, who is nobody here, may change it.
  const auto inside = process::Run(
      net.Call(), {.program = "/usr/bin/nsenter",
                   .args = {"--user=" + userns, "--net=" + network->netns_path, "sh", "-c",
                            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; "
                            "ip link add d0 type veth peer name d1 && ip -br link show lo"},
                   .env = process::PlainEnvironment()});
  REQUIRE(inside.ok());
  INFO(inside->err);
  CHECK(inside->exit_code == 0);
  CHECK(inside->out.starts_with("81\n"));
  CHECK(inside->out.find("LOOPBACK,UP") != std::string::npos);
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  const auto none = net.networks->Attach(net.Call(), kPod, config, net.root / "nothing");
  CHECK(none.code() == Code::kNotFound);
  CHECK(owner->pidfd().Signal(SIGKILL).ok());
  CHECK(owner->Wait(net.Call()).ok());
}

}  // namespace
}  // namespace crisp::netd
