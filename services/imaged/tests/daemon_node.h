#pragma once

#include <signal.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "cri/v1/api.grpc.pb.h"
#include "crisp/imaged/v1/imaged.grpc.pb.h"
#include "libs/os/files.h"
#include "libs/process/command.h"
#include "libs/rpc/peer.h"
#include "libs/testing/test_root.h"

namespace crisp::imaged::testing {

/// crisp-imaged itself, confined, in a directory of its own.
class DaemonNode {
 public:
  explicit DaemonNode(const std::string& more = "") {
    // The same tests, with another storage driver.
    const char* driver = std::getenv("CRISP_TEST_DRIVER");
    root_.Write("crisp.yaml",
                fmt::format("state_root: {0}/s\nrun_root: {0}/r\nimaged:\n"
                            "  policy: {0}/trust/policy.json\n  driver: {1}\n{2}",
                            root_.path(), driver == nullptr ? "overlay" : driver, more));
    Policy(R"({"type":"insecureAcceptAnything"})");
    Start();
  }
  ~DaemonNode() {
    if (child_) Kill(SIGTERM);
  }

  void Start() {
    auto child = process::Spawn({.program = CRISP_IMAGED_PROGRAM,
                                 .args = {"--config", root_ / "crisp.yaml", "--log-level", "warn"},
                                 .env = process::PlainEnvironment()});
    REQUIRE(child.ok());
    child_ = std::move(child).value();
    if (images_ != nullptr) return;
    peer_ = rpc::Peer("imaged/1", root_ / "r/imaged/1.sock", std::chrono::seconds(10));
    images_ = runtime::v1::ImageService::NewStub(peer_.channel());
    snapshots_ = v1::Snapshots::NewStub(peer_.channel());
  }
  void Kill(int signal) {
    REQUIRE(child_->pidfd().Signal(signal).ok());
    CHECK(child_->Wait(Call()).ok());
    child_.reset();
  }
  void Policy(const std::string& requirement) const {
    root_.Write("trust/policy.json", R"({"default":[)" + requirement + "]}");
  }
  Result<std::string> Pull(const std::string& image) const {
    runtime::v1::PullImageRequest request;
    request.mutable_image()->set_image(image);
    const auto response =
        rpc::Call(Call(), peer_, *images_, &runtime::v1::ImageService::Stub::PullImage, request);
    if (!response.ok()) return response.status();
    return response->image_ref();
  }
  std::vector<std::string> List() const {
    const auto response =
        rpc::Call(Call(), peer_, *images_, &runtime::v1::ImageService::Stub::ListImages, {});
    REQUIRE(response.ok());
    std::vector<std::string> ids;
    for (const auto& image : response->images()) ids.push_back(image.id());
    return ids;
  }
  std::uint64_t UsedBytes() const {
    const auto response =
        rpc::Call(Call(), peer_, *images_, &runtime::v1::ImageService::Stub::ImageFsInfo, {});
    REQUIRE(response.ok());
    return response->image_filesystems(0).used_bytes().value();
  }
  void Remove(const std::string& image) const {
    runtime::v1::RemoveImageRequest request;
    request.mutable_image()->set_image(image);
    CHECK(rpc::Call(Call(), peer_, *images_, &runtime::v1::ImageService::Stub::RemoveImage, request)
              .ok());
  }
  Result<v1::PrepareResponse> Prepare(const std::string& owner, const std::string& image,
                                      const std::string& specified) const {
    v1::PrepareRequest request;
    request.set_owner_id(owner);
    request.set_image(image);
    request.set_user_specified_image(specified);
    return rpc::Call(Call(), peer_, *snapshots_, &v1::Snapshots::Stub::Prepare, request);
  }
  Status Release(const std::string& owner) const {
    v1::ReleaseRequest request;
    request.set_owner_id(owner);
    return rpc::Call(Call(), peer_, *snapshots_, &v1::Snapshots::Stub::Release, request).status();
  }
  process::Output Check(const std::vector<std::string>& flags) const {
    process::Command command{.program = CRISP_STORE_CHECK_PROGRAM,
                             .args = {"--config", root_ / "crisp.yaml"},
                             .env = process::PlainEnvironment()};
    command.args.insert(command.args.end(), flags.begin(), flags.end());
    const auto output = process::Run(Call(), command);
    REQUIRE(output.ok());
    return *output;
  }
  pid_t pid() const { return child_->pid(); }
  std::string ProcStatus() const { return *os::ReadFile(fmt::format("/proc/{}/status", pid())); }
  std::string LayersDir() const { return root_ / "s/imaged/layers"; }
  std::string StagingDir() const { return root_ / "s/imaged/staging"; }
  const crisp::testing::TestRoot& root() const { return root_; }

 private:
  static CallContext Call() { return CallContext::Background(std::chrono::seconds(60), "test"); }

  crisp::testing::TestRoot root_;
  std::optional<process::Child> child_;
  rpc::Peer peer_;
  std::unique_ptr<runtime::v1::ImageService::Stub> images_;
  std::unique_ptr<v1::Snapshots::Stub> snapshots_;
};

}  // namespace crisp::imaged::testing
