#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "crisp/netd/v1/netd.grpc.pb.h"
#include "libs/os/files.h"
#include "libs/process/command.h"
#include "libs/rpc/peer.h"
#include "libs/testing/test_root.h"

namespace crisp::netd {

using namespace std::chrono_literals;

inline const std::string kPod(64, 'a');

inline CallContext Call() { return CallContext::Background(20s, "test"); }

/// crisp-netd with a directory of its own, started and killed at will.
class Node {
 public:
  /// `more`: lines of the settings below netd; `bin_dirs`: after the node's own.
  explicit Node(const std::string& more = {}, const std::vector<std::string>& bin_dirs = {}) {
    std::string bins = root_ / "bin";
    for (const std::string& dir : bin_dirs) bins += ", " + dir;
    root_.Write("crisp.yaml", fmt::format("state_root: {0}/s\nrun_root: {0}/r\nnetd:\n"
                                          "  conf_dirs: [{0}/conf]\n  bin_dirs: [{2}]\n"
                                          "  cache_dir: {0}/cache\n"
                                          "  orphan_grace_seconds: 1\n{1}",
                                          root_.path(), more, bins));
    Plugin("");
    Start();
  }
  ~Node() {
    if (child_) Kill(SIGKILL);  // a case that is about SIGTERM sends it itself
  }

  void Start(const std::string& instance = "1") {
    const auto log = os::Open(root_ / "netd.log", O_WRONLY | O_CREAT | O_APPEND, S_IRUSR | S_IWUSR);
    REQUIRE(log.ok());
    auto child = process::Spawn(
        {.program = CRISP_NETD_PROGRAM,
         .args = {"--config", root_ / "crisp.yaml", "--log-level", "warn", "--instance", instance},
         .env = process::PlainEnvironment(),
         .err_fd = log->get()});
    REQUIRE(child.ok());
    child_ = std::move(child).value();
    // Once: calls that are under way at a restart go on with them.
    if (std::exchange(instance_, instance) == instance) return;
    peer_ = rpc::Peer("netd/" + instance, root_ / ("r/netd/" + instance + ".sock"), 10s);
    stub_ = v1::Network::NewStub(peer_.channel());
  }
  /// The exit code.
  int Kill(int signal) {
    Signal(signal);
    return Ended();
  }
  void Signal(int signal) { REQUIRE(child_->pidfd().Signal(signal).ok()); }
  /// Waits for it; the exit code.
  int Ended() {
    const auto code = child_->Wait(Call());
    child_.reset();
    REQUIRE(code.ok());
    return *code;
  }

  /// `on_add` is shell that runs before the address is printed, `on_other` what all other commands
  /// do.
  void Plugin(const std::string& on_add, const std::string& on_other = ":") const {
    root_.Script("bin/fake", fmt::format(R"(test $CNI_COMMAND != VERSION || exit 0
echo $CNI_COMMAND >> {0}/calls
if test $CNI_COMMAND != ADD; then {2}; exit; fi
{1}
echo '{{"cniVersion": "1.0.0", "ips": [{{"address": "10.9.8.7/24"}}]}}'
)",
                                         root_.path(), on_add, on_other));
  }
  void Conf(const std::string& version = "1.0.0") const {
    root_.Write("conf/10-t.conf",
                fmt::format(R"({{"cniVersion": "{}", "name": "t", "type": "fake"}})", version));
  }
  std::string Calls() const { return root_.Read("calls"); }
  /// How often the plugin was called for it.
  int Count(const std::string& command) const {
    const std::string calls = Calls();
    int count = 0;
    for (std::size_t at = 0; (at = calls.find(command + "\n", at)) != std::string::npos; ++at) {
      ++count;
    }
    return count;
  }
  /// Polls, for what another process does in its own time; false when it has not done it within
  /// 20 s.
  static bool Until(const std::function<bool()>& done) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (std::chrono::steady_clock::now() < end) {
      if (done()) return true;
      std::this_thread::yield();
    }
    return false;
  }
  bool WaitFor(const std::string& file, const std::string& text) const {
    return Until([&] { return root_.Read(file) == text; });
  }

  Result<v1::AttachResponse> Attach(const CallContext& cc = Call()) const {
    v1::AttachRequest request;
    request.set_pod_id(kPod);
    return Attach(cc, std::move(request));
  }
  Result<v1::AttachResponse> Attach(const CallContext& cc, v1::AttachRequest request) const {
    request.mutable_config()->mutable_metadata()->set_name("web");
    return rpc::Call(cc, peer_, *stub_, &v1::Network::Stub::Attach, request);
  }
  Status Detach(const CallContext& cc = Call(), const std::string& pod = kPod) const {
    v1::DetachRequest request;
    request.set_pod_id(pod);
    return rpc::Call(cc, peer_, *stub_, &v1::Network::Stub::Detach, request).status();
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
    INFO(response.status().ToString() + "\n" + LastWords());
    REQUIRE(response.ok());
    return {response->freed_pod_ids().begin(), response->freed_pod_ids().end()};
  }
  const testing::TestRoot& root() const { return root_; }
  /// The end of netd's log.
  std::string LastWords() const {
    constexpr std::size_t kEnough = 2000;
    const std::string log = root_.Read("netd.log");
    return log.substr(log.size() - std::min(log.size(), kEnough));
  }

 private:
  testing::TestRoot root_;
  std::string instance_;
  std::optional<process::Child> child_;
  rpc::Peer peer_;
  std::unique_ptr<v1::Network::Stub> stub_;
};

}  // namespace crisp::netd
