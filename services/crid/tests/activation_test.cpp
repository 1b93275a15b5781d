// The front under somebody who holds its socket, as systemd does: it comes and goes, and clients
// only wait.
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "cri/v1/api.grpc.pb.h"
#include "libs/base/guarded.h"
#include "libs/os/files.h"
#include "libs/os/unique_fd.h"
#include "libs/process/command.h"
#include "libs/rpc/peer.h"
#include "libs/testing/test_root.h"

namespace crisp::crid {
namespace {

using runtime::v1::RuntimeService;

constexpr int kClients = 3;
constexpr int kRestarts = 5;

CallContext Soon() { return CallContext::Background(std::chrono::seconds(60), "test"); }

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

/// sockaddr_un is what the socket calls mean by sockaddr.
const sockaddr* Generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

/// One connection for all calls, as the kubelet has it.
std::function<std::string()> Versions(const std::string& socket) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const std::shared_ptr<RuntimeService::Stub> stub = RuntimeService::NewStub(
      grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments));
  return [stub] {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    runtime::v1::VersionResponse response;
    const grpc::Status status = stub->Version(&context, {}, &response);
    return status.ok() ? "" : rpc::FromGrpc(status).ToString();
  };
}

/// A connection for each call, as a command line has it.
std::function<std::string()> FreshVersions(const std::string& socket) {
  return [socket] { return Versions(socket)(); };
}

/// Binds the socket and hands it to each front that it starts.
class Holder {
 public:
  Holder() : listening_(Listen(root_ / "crisp.sock")) {
    root_.Write("crisp.yaml", fmt::format("state_root: {0}/s\nrun_root: {0}/r\ncrid:\n"
                                          "  socket: {0}/crisp.sock\n  metrics_address: ''\n"
                                          "  peer_wait_seconds: 0\n",
                                          root_.path()));
  }

  std::string socket() const { return root_ / "crisp.sock"; }
  process::Child& front() { return *front_; }

  void Start() {
    process::Command command;
    command.program = "/bin/sh";
    command.args = {"-c",
                    "LISTEN_PID=$$ exec \"$0\" \"$@\"",
                    CRISP_CRID_PROGRAM,
                    "--config",
                    root_ / "crisp.yaml",
                    "--log-level",
                    "warn"};
    command.env = process::PlainEnvironment();
    command.env.emplace_back("LISTEN_FDS=1");
    command.env.emplace_back("LISTEN_FDNAMES=cri");
    command.fds = {{3, listening_.get()}};
    auto child = process::Spawn(command);
    REQUIRE(child.ok());
    front_.emplace(*std::move(child));
    CHECK(Versions(socket())() == "");
  }
  int Stop(int signal) {
    REQUIRE(front_->pidfd().Signal(signal).ok());
    return *front_->Wait(Soon());
  }

 private:
  static os::UniqueFd Listen(const std::string& path) {
    os::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_un address = AddressOf(path);
    REQUIRE(bind(fd.get(), Generic(address), sizeof address) == 0);
    REQUIRE(listen(fd.get(), 1000) == 0);
    return fd;
  }

  testing::TestRoot root_;
  os::UniqueFd listening_;
  std::optional<process::Child> front_;
};

/// Calls again and again, each on a thread of its own, until they are told to end.
class Callers {
 public:
  /// `call` answers what is to be complained about, or nothing.
  void Add(std::function<std::string()> call) {
    threads_.emplace_back([this, call = std::move(call)](const std::stop_token& end) {
      while (!end.stop_requested()) {
        const std::string complaint = call();
        ++calls_;
        if (!complaint.empty()) complaints_.lock()->push_back(complaint);
      }
    });
  }
  /// Until so many more calls have ended.
  void Await(int more) const {
    const int until = calls_ + more;
    while (calls_ < until) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::vector<std::string> End() {
    threads_.clear();
    return *complaints_.lock();
  }

 private:
  std::atomic<int> calls_{0};
  Guarded<std::vector<std::string>> complaints_;
  std::vector<std::jthread> threads_;
};

std::string Connects(const std::string& path) {
  const sockaddr_un address = AddressOf(path);
  const os::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (connect(fd.get(), Generic(address), sizeof address) == 0) return "";
  return Status::Errno(errno, "connect").ToString();
}

std::size_t OpenFiles(const process::Child& child) {
  return os::ListDir(fmt::format("/proc/{}/fd", child.pid()))->size();
}

}  // namespace

TEST_CASE("A front that is told to end and starts again lets every call wait, none fail") {
  Holder holder;
  holder.Start();
  Callers callers;
  for (int client = 0; client < kClients; ++client) callers.Add(Versions(holder.socket()));
  callers.Add(FreshVersions(holder.socket()));
  for (int restart = 0; restart < kRestarts; ++restart) {
    callers.Await(100);
    CHECK(holder.Stop(SIGTERM) == 0);
    CHECK(os::Exists(holder.socket()));  // it is not the front's to take away
    holder.Start();
  }
  callers.Await(100);
  CHECK(callers.End() == std::vector<std::string>());
  CHECK(holder.Stop(SIGTERM) == 0);
}

TEST_CASE("A front that is killed refuses no connection, and calls that are made again succeed") {
  Holder holder;
  holder.Start();
  Callers callers;
  callers.Add([path = holder.socket()] {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the queue has its limit
    return Connects(path);
  });
  for (int client = 0; client < kClients; ++client) {
    callers.Add([peer = rpc::Peer("crid/1", holder.socket(), std::chrono::seconds(60))] {
      const auto stub = RuntimeService::NewStub(peer.channel());
      const auto version = rpc::Call(Soon(), peer, *stub, &RuntimeService::Stub::Version, {});
      return version.ok() ? "" : version.status().ToString();
    });
  }
  for (int restart = 0; restart < kRestarts; ++restart) {
    callers.Await(100);
    CHECK(holder.Stop(SIGKILL) == 128 + SIGKILL);
    holder.Start();
  }
  callers.Await(100);
  CHECK(callers.End() == std::vector<std::string>());
  CHECK(holder.Stop(SIGTERM) == 0);
}

TEST_CASE("Thousands of connections leave no descriptor behind") {
  Holder holder;
  holder.Start();
  const auto call = FreshVersions(holder.socket());
  CHECK(call().empty());
  const std::size_t before = OpenFiles(holder.front());
  for (int round = 0; round < 1000; ++round) {
    CHECK(Connects(holder.socket()).empty());
    CHECK(call().empty());
  }
  // The last ones may be on their way out still.
  for (int wait = 0; wait < 500 && OpenFiles(holder.front()) > before; ++wait) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  CHECK(OpenFiles(holder.front()) <= before);
  CHECK(holder.Stop(SIGTERM) == 0);
}

}  // namespace crisp::crid
