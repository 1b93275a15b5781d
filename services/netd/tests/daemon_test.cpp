// The program itself: over its socket, killed and started again. Needs root.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <functional>
#include <optional>
#include <stop_token>
#include <thread>

#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/os/namespaces.h"
#include "libs/os/proc_stat.h"
#include "libs/process/command.h"
#include "services/netd/tests/daemon_node.h"

namespace crisp::netd {
namespace {

using namespace std::chrono_literals;

/// A plugin's part: it says that it has begun, and goes on when the file "go" is there.
std::string WaitForGo(const Node& node) {
  return fmt::format(
      "echo x > {0}/begun; while test -e {0}/begun -a ! -e {0}/go; do sleep 0.01; done",
      node.root().path());
}

TEST_CASE("The service says why it is not ready, and notices a configuration by itself") {
  const Node node;
  const auto before = node.Ready();
  CHECK_FALSE(before.ready());
  CHECK(before.reason() == "NetworkPluginNotReady");
  CHECK(before.message().find("conf") != std::string::npos);
  // Attach waits for it rather than fail.
  std::optional<Result<v1::AttachResponse>> attached;
  std::jthread caller([&node, &attached] { attached = node.Attach(); });
  node.Conf();
  caller.join();
  INFO(attached->status().ToString());
  REQUIRE(attached->ok());
  CHECK((*attached)->ips(0) == "10.9.8.7");
  CHECK(json::Parse((*attached)->cni_result()).ok());
  CHECK(os::IsPinnedNamespace((*attached)->netns_path()).value());
  CHECK(node.Ready().ready());
  CHECK(node.Ready().network_name() == "t");
  CHECK(node.Detach().ok());
  CHECK(node.Detach().ok());
}

TEST_CASE("An attachment outlives the daemon's death; what nobody owns is freed") {
  Node node;
  node.Conf();
  const auto first = node.Attach();
  REQUIRE(first.ok());
  CHECK(node.Kill(SIGKILL) == 137);
  CHECK(os::IsPinnedNamespace(first->netns_path()).value());
  node.Start();
  CHECK(node.Attach()->cni_result() == first->cni_result());
  CHECK(node.Calls() == "ADD\n");
  CHECK(node.Reconcile({kPod}).empty());
  std::vector<std::string> freed;
  CHECK(Node::Until([&] {  // its grace: 1 s
    freed = node.Reconcile({});
    return !freed.empty();
  }));
  CHECK(freed == std::vector<std::string>{kPod});
  CHECK(node.WaitFor("calls", "ADD\nDEL\n"));
  CHECK(Node::Until([&] { return !os::Exists(first->netns_path()); }));
}

TEST_CASE("Killed in the middle of ADD, the next start gives back what the plugin took") {
  Node node;
  node.Conf();
  node.Plugin("echo $$ > " + node.root() / "pid" + "; echo x > " + node.root() / "begun" +
              "; sleep 100");
  std::optional<Result<v1::AttachResponse>> attached;
  std::jthread caller(
      [&node, &attached] { attached = node.Attach(CallContext::Background(10s, "test")); });
  REQUIRE(node.WaitFor("begun", "x\n"));
  const pid_t plugin = std::stoi(node.root().Read("pid"));
  CHECK(node.Kill(SIGKILL) == 137);
  node.Plugin("");
  node.Start();
  // Whether the roll back or the retried call comes first, it is one DEL, then one ADD.
  caller.join();
  const auto again = node.Attach();
  INFO(again.status().ToString());
  REQUIRE(again.ok());
  CHECK_FALSE(os::Alive(os::ProcessId::Of(plugin).value_or({})));  // it cannot end after our DEL
  CHECK(node.Calls() == "ADD\nDEL\nADD\n");
  CHECK(node.Detach().ok());
  CHECK(node.Calls() == "ADD\nDEL\nADD\nDEL\n");
}

TEST_CASE("What is owed is tried again by itself, and Status tells of a network that breaks") {
  Node node("  status_grace_seconds: 0\n");
  node.Conf();
  REQUIRE(node.Attach().ok());
  CHECK(node.Ready().ready());
  const std::string program = node.root() / "bin/fake";
  const std::string aside = node.root() / "fake";
  REQUIRE(os::Rename(program, aside).ok());
  CHECK(node.Detach().ok());  // owed: there is nobody to ask
  CHECK(node.Calls() == "ADD\n");
  REQUIRE(Node::Until([&] { return !node.Ready().ready(); }));
  CHECK(node.Ready().message().find("'fake'") != std::string::npos);
  CHECK(node.Kill(SIGKILL) == 137);
  node.Start();
  REQUIRE(os::Rename(aside, program).ok());
  CHECK(node.WaitFor("calls", "ADD\nDEL\n"));
  REQUIRE(Node::Until([&] { return node.Ready().ready(); }));
}

TEST_CASE("A network that is being replaced does not make the node NotReady") {
  const Node node("  status_grace_seconds: 600\n");
  node.Conf();
  REQUIRE(Node::Until([&] { return node.Ready().ready(); }));
  REQUIRE(os::RemoveTree(node.root() / "conf").ok());
  v1::StatusResponse status;
  REQUIRE(Node::Until([&] {
    status = node.Ready();
    return !status.reason().empty();
  }));
  CHECK(status.ready());
  CHECK(status.reason() == "NetworkPluginGrace");
  CHECK(status.message().starts_with("no network configuration"));
  // The new one is noticed although its directory was made anew.
  node.Conf();
  REQUIRE(Node::Until([&] { return node.Ready().reason().empty(); }));
  CHECK(node.Ready().network_name() == "t");
}

TEST_CASE("Garbage is collected once the living pods are known, and from time to time") {
  const Node node("  gc_interval_seconds: 1\n");
  node.Conf("1.1.0");
  REQUIRE(node.Attach().ok());
  CHECK(node.Reconcile({kPod}).empty());
  CHECK(Node::Until([&] { return node.Count("GC") >= 3; }));
  CHECK(node.Detach().ok());
}

/// netd dies during a plugin's GC, which goes on without it.
os::ProcessId OrphanGc(Node& node) {
  node.Conf("1.1.0");
  node.Plugin("",
              fmt::format("test $CNI_COMMAND != GC || test -e {0}/calm || {{ echo $$ > {0}/pid; "
                          "echo x > {0}/begun; sleep 100; }}",
                          node.root().path()));
  CHECK(node.Reconcile({}).empty());
  REQUIRE(node.WaitFor("begun", "x\n"));
  const auto orphan = os::ProcessId::Of(std::stoi(node.root().Read("pid")));
  REQUIRE(orphan.ok());
  CHECK(node.Kill(SIGKILL) == 137);
  node.root().Write("calm", "");
  return *orphan;
}

TEST_CASE("A garbage collection that outlived netd frees no address by its old list") {
  Node node;
  const os::ProcessId orphan = OrphanGc(node);
  node.Start();
  REQUIRE(node.Attach().ok());
  CHECK_FALSE(os::Alive(orphan));
  CHECK(node.Detach().ok());
}

TEST_CASE("A DEL that fails or hangs is the caller's to know, and done when it works again") {
  Node node("  detach_timeout_seconds: 1\n");
  node.Conf();
  REQUIRE(node.Attach().ok());
  node.Plugin("", R"(echo '{"msg": "agent is away"}'; exit 1)");
  const Status failed = node.Detach();
  CHECK(failed.code() == Code::kInternal);
  CHECK(failed.message().find("agent is away") != std::string::npos);
  node.Plugin("", "sleep 100");
  CHECK(node.Detach().code() == Code::kDeadlineExceeded);
  CHECK(node.Attach().code() == Code::kDeadlineExceeded);  // it begins with the DEL
  node.Plugin("");
  // By itself, or by the caller who asks again: never twice.
  CHECK(Node::Until([&] { return os::ListDir(node.root() / "r/netd/netns").value().empty(); }));
  CHECK(node.Detach().ok());
  const int count = node.Count("DEL");
  CHECK(node.Detach().ok());
  CHECK(node.Count("DEL") == count);
}

TEST_CASE("SIGTERM lets a call in flight end") {
  Node node;
  node.Conf();
  node.Plugin(WaitForGo(node));
  std::optional<Result<v1::AttachResponse>> attached;
  std::jthread caller([&node, &attached] { attached = node.Attach(); });
  REQUIRE(node.WaitFor("begun", "x\n"));
  node.Signal(SIGTERM);
  // It has left its socket, and so knows that it is to end; the plugin still runs.
  REQUIRE(Node::Until([&] { return !os::Exists(node.root() / "r/netd/1.sock"); }));
  node.root().Write("go", "");
  CHECK(node.Ended() == 0);
  caller.join();
  INFO(attached->status().ToString());
  CHECK(attached->ok());
  node.Start();
  CHECK(node.Detach().ok());
}

TEST_CASE("When the caller leaves, the attachment goes on and is found by the retry") {
  Node node;
  node.Conf();
  node.Plugin(WaitForGo(node));
  std::stop_source leave;
  std::optional<Code> left;
  std::jthread caller([&] {
    left = node.Attach(CallContext(SteadyTime::max(), leave.get_token(), "test")).code();
  });
  REQUIRE(node.WaitFor("begun", "x\n"));
  leave.request_stop();
  caller.join();
  CHECK(left == Code::kCancelled);
  node.root().Write("go", "");
  CHECK(node.Attach().ok());
  CHECK(node.Calls() == "ADD\n");
  CHECK(node.Detach().ok());
}

/// `fn(i)` for each of `count`, all at once; whether all have done well.
bool AtOnce(int count, const std::function<bool(int)>& fn) {
  std::atomic<int> good = 0;
  std::vector<std::jthread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&fn, &good, i] { good += fn(i) ? 1 : 0; });
  }
  threads.clear();
  return good == count;
}

/// Different at the front, as real ids are.
std::string IdOf(int number) { return fmt::format("{:06x}{:058x}", 0xabc000 + number, 0); }

/// A plugin's part that goes on for all pods at once: when the test opens the pipe.
std::string WaitForPipe(const Node& node) {
  const std::string pipe = node.root() / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  return fmt::format("echo x >> {}/begun; read -r line < {} || true", node.root().path(), pipe);
}

void OpenPipe(const Node& node) {
  // Open until nobody can come any more: who comes late finds no pipe, and goes on too.
  const auto writer = os::Open(node.root() / "pipe", O_WRONLY);
  CHECK(writer.ok());
  CHECK(os::RemoveFile(node.root() / "pipe").ok());
}

bool AttachNumber(const Node& node, int number) {
  v1::AttachRequest request;
  request.set_pod_id(IdOf(number));
  return node.Attach(Call(), std::move(request)).ok();
}

bool DetachNumber(const Node& node, int number) { return node.Detach(Call(), IdOf(number)).ok(); }

TEST_CASE("Pods whose plugins take their time keep no other pod from its network") {
  constexpr int kPods = 64;
  const Node node;
  node.Conf();
  node.Plugin(WaitForPipe(node));
  REQUIRE(Node::Until([&] { return node.Ready().ready(); }));
  bool good = false;
  std::jthread pods(
      [&node, &good] { good = AtOnce(kPods, [&node](int i) { return AttachNumber(node, i); }); });
  // All of them stand in their plugin at the same time.
  CHECK(Node::Until([&node] { return node.root().Read("begun").size() == 2 * kPods; }));
  OpenPipe(node);
  pods.join();
  CHECK(good);
  CHECK(AtOnce(kPods, [&node](int i) { return DetachNumber(node, i); }));
}

TEST_CASE("Plugins that hang in DEL keep netd from nothing else") {
  constexpr int kPods = 130;
  constexpr int kThreads = 128;
  const Node node("  status_grace_seconds: 0\n");
  node.Conf();
  REQUIRE(Node::Until([&] { return node.Ready().ready(); }));
  CHECK(AtOnce(kPods, [&node](int i) { return AttachNumber(node, i); }));
  node.Plugin("", WaitForPipe(node));
  bool good = false;
  std::jthread pods(
      [&node, &good] { good = AtOnce(kPods, [&node](int i) { return DetachNumber(node, i); }); });
  CHECK(Node::Until([&node] { return node.root().Read("begun").size() >= 2 * kThreads; }));
  CHECK(node.Ready().ready());
  // What becomes of the network is noticed, and a new pod gets one.
  REQUIRE(os::Rename(node.root() / "conf", node.root() / "aside").ok());
  CHECK(Node::Until([&] { return !node.Ready().ready(); }));
  REQUIRE(os::Rename(node.root() / "aside", node.root() / "conf").ok());
  CHECK(Node::Until([&] { return node.Ready().ready(); }));
  CHECK(node.Attach().ok());
  OpenPipe(node);
  pods.join();
  CHECK(good);
  CHECK(node.Detach().ok());
}

TEST_CASE("An instance's garbage collection that outlived it is ended by another instance") {
  Node node;
  const os::ProcessId orphan = OrphanGc(node);
  node.Start("2");
  REQUIRE(node.Attach().ok());
  CHECK_FALSE(os::Alive(orphan));
  CHECK(node.Detach().ok());
}

}  // namespace
}  // namespace crisp::netd
