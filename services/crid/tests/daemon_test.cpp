// The program itself, confined as it runs on a node.
#include <signal.h>

#include <catch2/catch.hpp>

#include "cri/v1/api.grpc.pb.h"
#include "libs/os/files.h"
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

}  // namespace
}  // namespace crisp::crid
