#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cri/v1/api.grpc.pb.h"

namespace crisp::harness {

namespace cri = ::runtime::v1;

/// What a call gave: gRPC's status and the message (empty when it failed).
template <typename Response>
struct Answer {
  grpc::Status status;
  Response value;

  bool ok() const { return status.ok(); }
  grpc::StatusCode code() const { return status.error_code(); }
  std::string message() const { return status.error_message(); }
  const Response* operator->() const { return &value; }
};

/// A CRI client as the kubelet is one: one connection, a deadline on every call. Any thread.
class Cri {
 public:
  using Timeout = std::chrono::milliseconds;
  static constexpr Timeout kTimeout{60000};

  /// `socket`: a path, or unix://path.
  explicit Cri(const std::string& socket);

  template <typename Request, typename Response>
  Answer<Response> Call(grpc::Status (cri::RuntimeService::StubInterface::*method)(
                            grpc::ClientContext*, const Request&, Response*),
                        const Request& request, Timeout timeout = kTimeout) const {
    return CallOn(*runtime_, method, request, timeout);
  }
  template <typename Request, typename Response>
  Answer<Response> Call(grpc::Status (cri::ImageService::StubInterface::*method)(
                            grpc::ClientContext*, const Request&, Response*),
                        const Request& request, Timeout timeout = kTimeout) const {
    return CallOn(*image_, method, request, timeout);
  }

  cri::RuntimeService::StubInterface& runtime() const { return *runtime_; }
  cri::ImageService::StubInterface& image() const { return *image_; }

  // The calls that tests make all the time.
  Answer<cri::VersionResponse> Version(Timeout timeout = kTimeout) const;
  Answer<cri::StatusResponse> Status(bool verbose = false, Timeout timeout = kTimeout) const;
  Answer<cri::RunPodSandboxResponse> RunPod(const cri::PodSandboxConfig& config,
                                            const std::string& handler = "",
                                            Timeout timeout = kTimeout) const;
  Answer<cri::StopPodSandboxResponse> StopPod(const std::string& id,
                                              Timeout timeout = kTimeout) const;
  Answer<cri::RemovePodSandboxResponse> RemovePod(const std::string& id,
                                                  Timeout timeout = kTimeout) const;
  Answer<cri::PodSandboxStatusResponse> PodStatus(const std::string& id,
                                                  bool verbose = false) const;
  Answer<cri::ListPodSandboxResponse> ListPods(const cri::PodSandboxFilter& filter = {},
                                               Timeout timeout = kTimeout) const;
  Answer<cri::CreateContainerResponse> Create(const std::string& pod,
                                              const cri::ContainerConfig& config,
                                              const cri::PodSandboxConfig& pod_config,
                                              Timeout timeout = kTimeout) const;
  Answer<cri::StartContainerResponse> Start(const std::string& id,
                                            Timeout timeout = kTimeout) const;
  Answer<cri::StopContainerResponse> Stop(const std::string& id, std::int64_t grace_seconds,
                                          Timeout timeout = kTimeout) const;
  Answer<cri::RemoveContainerResponse> Remove(const std::string& id,
                                              Timeout timeout = kTimeout) const;
  Answer<cri::ContainerStatusResponse> ContainerStatus(const std::string& id,
                                                       bool verbose = false) const;
  Answer<cri::ListContainersResponse> ListContainers(const cri::ContainerFilter& filter = {},
                                                     Timeout timeout = kTimeout) const;
  Answer<cri::UpdateContainerResourcesResponse> UpdateResources(
      const std::string& id, const cri::LinuxContainerResources& resources,
      Timeout timeout = kTimeout) const;
  Answer<cri::ExecSyncResponse> ExecSync(const std::string& id, const std::vector<std::string>& cmd,
                                         std::int64_t timeout_seconds = 10) const;
  Answer<cri::PullImageResponse> Pull(const std::string& image, Timeout timeout = kTimeout) const;
  Answer<cri::ImageStatusResponse> ImageStatus(const std::string& image,
                                               bool verbose = false) const;
  Answer<cri::ListImagesResponse> ListImages(const std::string& filter = "") const;
  Answer<cri::RemoveImageResponse> RemoveImage(const std::string& image) const;

 private:
  template <typename Stub, typename Request, typename Response>
  static Answer<Response> CallOn(Stub& stub,
                                 grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                              Response*),
                                 const Request& request, Timeout timeout) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    // A daemon that is being restarted is waited for, as the kubelet's next try would.
    context.set_wait_for_ready(true);
    Answer<Response> answer;
    answer.status = (stub.*method)(&context, request, &answer.value);
    return answer;
  }

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<cri::RuntimeService::StubInterface> runtime_;
  std::unique_ptr<cri::ImageService::StubInterface> image_;
};

/// "UNAVAILABLE: imaged is away", for messages of failed tests.
std::string Describe(const grpc::Status& status);

}  // namespace crisp::harness
