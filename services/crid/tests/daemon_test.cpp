// The program itself, confined as it runs on a node.
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "cri/v1/api.grpc.pb.h"
#include "crisp/daemon/v1/daemon.grpc.pb.h"
#include "libs/os/files.h"
#include "libs/os/unique_fd.h"
#include "libs/process/command.h"
#include "libs/rpc/peer.h"
#include "libs/testing/test_root.h"

namespace crisp::crid {
namespace {

TEST_CASE("The front serves without any capability, and can gain none") {
  const crisp::testing::TestRoot root;
  root.Write("crisp.yaml", fmt::format("state_root: {0}/s\nrun_root: {0}/r\ncrid:\n"
                                       "  metrics_address: ''\n  peer_wait_seconds: 0\n",
                                       root.path()));
  auto child = process::Spawn({.program = CRISP_CRID_PROGRAM,
                               .args = {"--config", root / "crisp.yaml", "--log-level", "warn"},
                               .env = process::PlainEnvironment()});
  REQUIRE(child.ok());
  const CallContext cc = CallContext::Background(std::chrono::seconds(20), "test");
  rpc::Peer peer("crid/1", root / "r/crisp.sock", std::chrono::seconds(10));
  const auto stub = runtime::v1::RuntimeService::NewStub(peer.channel());
  const auto version = rpc::Call(cc, peer, *stub, &runtime::v1::RuntimeService::Stub::Version, {});
  CHECK(version.ok());
  const std::string status = *os::ReadFile(fmt::format("/proc/{}/status", child->pid()));
  for (const char* line : {"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
                           "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"}) {
    CAPTURE(line, status);
    CHECK(status.find(line) != std::string::npos);
  }
  REQUIRE(child->pidfd().Signal(SIGTERM).ok());
  CHECK(*child->Wait(cc) == 0);
  CHECK_FALSE(os::Exists(root / "s"));  // it keeps nothing
}

TEST_CASE("The CRI is served although somebody else has the metrics' address, and that is told") {
  const os::UniqueFd taken(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  REQUIRE(bind(taken.get(), generic, size) == 0);
  REQUIRE(listen(taken.get(), 1) == 0);
  REQUIRE(getsockname(taken.get(), generic, &size) == 0);

  const crisp::testing::TestRoot root;
  root.Write("crisp.yaml", fmt::format("state_root: {0}/s\nrun_root: {0}/r\ncrid:\n"
                                       "  metrics_address: 127.0.0.1:{1}\n  peer_wait_seconds: 0\n",
                                       root.path(), ntohs(address.sin_port)));
  auto child = process::Spawn({.program = CRISP_CRID_PROGRAM,
                               .args = {"--config", root / "crisp.yaml", "--log-level", "error"},
                               .env = process::PlainEnvironment()});
  REQUIRE(child.ok());
  const CallContext cc = CallContext::Background(std::chrono::seconds(20), "test");
  const rpc::Peer peer("crid/1", root / "r/crisp.sock", std::chrono::seconds(10));
  const auto stub = daemon::v1::Daemon::NewStub(peer.channel());
  const auto info = rpc::Call(cc, peer, *stub, &daemon::v1::Daemon::Stub::Info, {});
  REQUIRE(info.ok());
  CHECK(std::any_of(info->problems().begin(), info->problems().end(), [](const auto& problem) {
    return problem.what().find("no metrics on TCP") != std::string::npos;
  }));
  REQUIRE(child->pidfd().Signal(SIGTERM).ok());
  CHECK(*child->Wait(cc) == 0);
}

}  // namespace
}  // namespace crisp::crid
