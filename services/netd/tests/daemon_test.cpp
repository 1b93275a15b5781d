// The program itself: over its socket, killed and started again. Needs root.
#include <signal.h>

#include <catch2/catch.hpp>
#include <thread>

#include "crisp/netd/v1/netd.grpc.pb.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/os/namespaces.h"
#include "libs/os/proc_stat.h"
#include "libs/process/command.h"
#include "libs/rpc/peer.h"
#include "libs/testing/test_root.h"

namespace crisp::netd {
namespace {

using namespace std::chrono_literals;

const std::string kPod(64, 'a');

CallContext Call() { return CallContext::Background(20s, "test"); }

class Node {
 public:
  Node() {
    root_.Write("crisp.yaml", fmt::format("state_root: {0}/s\nrun_root: {0}/r\nnetd:\n"
                                          "  conf_dir: {0}/conf\n  bin_dirs: [{0}/bin]\n"
                                          "  orphan_grace_seconds: 1\n",
                                          root_.path()));
    Plugin("");
    Start();
  }
  ~Node() {
    if (child_) Kill(SIGTERM);
  }

  void Start() {
    auto child = process::Spawn({.program = CRISP_NETD_PROGRAM,
                                 .args = {"--config", root_ / "crisp.yaml", "--log-level", "warn"},
                                 .env = process::PlainEnvironment()});
    REQUIRE(child.ok());
    child_ = std::move(child).value();
    // Once: calls that are under way at a restart go on with them.
    if (stub_ != nullptr) return;
    peer_ = rpc::Peer("netd/1", root_ / "r/netd/1.sock", 10s);
    stub_ = v1::Network::NewStub(peer_.channel());
  }
  /// The exit code.
  int Kill(int signal) {
    REQUIRE(child_->pidfd().Signal(signal).ok());
    const auto code = child_->Wait(Call());
    child_.reset();
    REQUIRE(code.ok());
    return *code;
  }

  /// `on_add` is shell that runs before the address is printed.
  void Plugin(const std::string& on_add) const {
    root_.Script("bin/fake", fmt::format(R"(echo $CNI_COMMAND >> {0}/calls
test $CNI_COMMAND = ADD || exit 0
{1}
echo '{{"cniVersion": "1.0.0", "ips": [{{"address": "10.9.8.7/24"}}]}}'
)",
                                         root_.path(), on_add));
  }
  void Conf() const {
    root_.Write("conf/10-t.conf", R"({"cniVersion": "1.0.0", "name": "t", "type": "fake"})");
  }
  std::string Calls() const { return root_.Read("calls"); }
  /// Polls until the file has the text; for what another process does in its own time.
  bool WaitFor(const std::string& file, const std::string& text) const {
    const auto end = std::chrono::steady_clock::now() + 10s;
    while (std::chrono::steady_clock::now() < end) {
      if (root_.Read(file) == text) return true;
      std::this_thread::yield();
    }
    return false;
  }

  Result<v1::AttachResponse> Attach(const CallContext& cc = Call()) const {
    v1::AttachRequest request;
    request.set_pod_id(kPod);
    request.mutable_config()->mutable_metadata()->set_name("web");
    return rpc::Call(cc, peer_, *stub_, &v1::Network::Stub::Attach, request);
  }
  Status Detach() const {
    v1::DetachRequest request;
    request.set_pod_id(kPod);
    return rpc::Call(Call(), peer_, *stub_, &v1::Network::Stub::Detach, request).status();
  }
  v1::StatusResponse Ready() const {
    auto response = rpc::Call(Call(), peer_, *stub_, &v1::Network::Stub::Status, {});
    REQUIRE(response.ok());
    return std::move(response).value();
  }
  std::vector<std::string> Reconcile(const std::vector<std::string>& live) const {
    v1::ReconcileRequest request;
    for (const std::string& id : live) request.add_live_pod_ids(id);
    const auto response = rpc::Call(Call(), peer_, *stub_, &v1::Network::Stub::Reconcile, request);
    REQUIRE(response.ok());
    return {response->freed_pod_ids().begin(), response->freed_pod_ids().end()};
  }
  const testing::TestRoot& root() const { return root_; }

 private:
  testing::TestRoot root_;
  std::optional<process::Child> child_;
  rpc::Peer peer_;
  std::unique_ptr<v1::Network::Stub> stub_;
};

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
  for (int i = 0; i < 100000 && freed.empty(); ++i) freed = node.Reconcile({});  // its grace: 1 s
  CHECK(freed == std::vector<std::string>{kPod});
  CHECK_FALSE(os::Exists(first->netns_path()));
  CHECK(node.Calls() == "ADD\nDEL\n");
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

TEST_CASE("SIGTERM lets a call in flight end") {
  Node node;
  node.Conf();
  node.Plugin("echo x > " + node.root() / "begun" + "; sleep 0.3");
  std::optional<Result<v1::AttachResponse>> attached;
  std::jthread caller([&node, &attached] { attached = node.Attach(); });
  REQUIRE(node.WaitFor("begun", "x\n"));
  CHECK(node.Kill(SIGTERM) == 0);
  caller.join();
  INFO(attached->status().ToString());
  CHECK(attached->ok());
  node.Start();
  CHECK(node.Detach().ok());
}

TEST_CASE("When the caller leaves, the attachment goes on and is found by the retry") {
  Node node;
  node.Conf();
  node.Plugin("echo x > " + node.root() / "begun" + "; sleep 0.3");
  CHECK(node.Attach(CallContext::Background(100ms)).code() == Code::kDeadlineExceeded);
  CHECK(node.Attach().ok());
  CHECK(node.Calls() == "ADD\n");
  CHECK(node.Detach().ok());
}

}  // namespace
}  // namespace crisp::netd
