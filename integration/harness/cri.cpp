#include "integration/harness/cri.h"

#include "libs/base/status.h"

namespace crisp::harness {
namespace {

using Runtime = cri::RuntimeService::StubInterface;
using Image = cri::ImageService::StubInterface;

std::shared_ptr<grpc::Channel> Connect(const std::string& socket) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(80 << 20);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 5);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 10'000);  // for one attempt
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 20);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
  const std::string target = socket.starts_with("unix:") ? socket : "unix://" + socket;
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

Cri::Cri(const std::string& socket)
    : channel_(Connect(socket)),
      runtime_(cri::RuntimeService::NewStub(channel_)),
      image_(cri::ImageService::NewStub(channel_)) {}

Answer<cri::VersionResponse> Cri::Version(Timeout timeout) const {
  return Call(&Runtime::Version, cri::VersionRequest(), timeout);
}

Answer<cri::StatusResponse> Cri::Status(bool verbose, Timeout timeout) const {
  cri::StatusRequest request;
  request.set_verbose(verbose);
  return Call(&Runtime::Status, request, timeout);
}

Answer<cri::RunPodSandboxResponse> Cri::RunPod(const cri::PodSandboxConfig& config,
                                               const std::string& handler, Timeout timeout) const {
  cri::RunPodSandboxRequest request;
  *request.mutable_config() = config;
  request.set_runtime_handler(handler);
  return Call(&Runtime::RunPodSandbox, request, timeout);
}

Answer<cri::StopPodSandboxResponse> Cri::StopPod(const std::string& id, Timeout timeout) const {
  cri::StopPodSandboxRequest request;
  request.set_pod_sandbox_id(id);
  return Call(&Runtime::StopPodSandbox, request, timeout);
}

Answer<cri::RemovePodSandboxResponse> Cri::RemovePod(const std::string& id, Timeout timeout) const {
  cri::RemovePodSandboxRequest request;
  request.set_pod_sandbox_id(id);
  return Call(&Runtime::RemovePodSandbox, request, timeout);
}

Answer<cri::PodSandboxStatusResponse> Cri::PodStatus(const std::string& id, bool verbose) const {
  cri::PodSandboxStatusRequest request;
  request.set_pod_sandbox_id(id);
  request.set_verbose(verbose);
  return Call(&Runtime::PodSandboxStatus, request);
}

Answer<cri::ListPodSandboxResponse> Cri::ListPods(const cri::PodSandboxFilter& filter,
                                                  Timeout timeout) const {
  cri::ListPodSandboxRequest request;
  *request.mutable_filter() = filter;
  return Call(&Runtime::ListPodSandbox, request, timeout);
}

Answer<cri::CreateContainerResponse> Cri::Create(const std::string& pod,
                                                 const cri::ContainerConfig& config,
                                                 const cri::PodSandboxConfig& pod_config,
                                                 Timeout timeout) const {
  cri::CreateContainerRequest request;
  request.set_pod_sandbox_id(pod);
  *request.mutable_config() = config;
  *request.mutable_sandbox_config() = pod_config;
  return Call(&Runtime::CreateContainer, request, timeout);
}

Answer<cri::StartContainerResponse> Cri::Start(const std::string& id, Timeout timeout) const {
  cri::StartContainerRequest request;
  request.set_container_id(id);
  return Call(&Runtime::StartContainer, request, timeout);
}

Answer<cri::UpdateContainerResourcesResponse> Cri::UpdateResources(
    const std::string& id, const cri::LinuxContainerResources& resources, Timeout timeout) const {
  cri::UpdateContainerResourcesRequest request;
  request.set_container_id(id);
  *request.mutable_linux() = resources;
  return Call(&Runtime::UpdateContainerResources, request, timeout);
}

Answer<cri::StopContainerResponse> Cri::Stop(const std::string& id, std::int64_t grace_seconds,
                                             Timeout timeout) const {
  cri::StopContainerRequest request;
  request.set_container_id(id);
  request.set_timeout(grace_seconds);
  return Call(&Runtime::StopContainer, request, timeout);
}

Answer<cri::RemoveContainerResponse> Cri::Remove(const std::string& id, Timeout timeout) const {
  cri::RemoveContainerRequest request;
  request.set_container_id(id);
  return Call(&Runtime::RemoveContainer, request, timeout);
}

Answer<cri::ContainerStatusResponse> Cri::ContainerStatus(const std::string& id,
                                                          bool verbose) const {
  cri::ContainerStatusRequest request;
  request.set_container_id(id);
  request.set_verbose(verbose);
  return Call(&Runtime::ContainerStatus, request);
}

Answer<cri::ListContainersResponse> Cri::ListContainers(const cri::ContainerFilter& filter,
                                                        Timeout timeout) const {
  cri::ListContainersRequest request;
  *request.mutable_filter() = filter;
  return Call(&Runtime::ListContainers, request, timeout);
}

Answer<cri::ExecSyncResponse> Cri::ExecSync(const std::string& id,
                                            const std::vector<std::string>& cmd,
                                            std::int64_t timeout_seconds) const {
  cri::ExecSyncRequest request;
  request.set_container_id(id);
  for (const std::string& word : cmd) request.add_cmd(word);
  request.set_timeout(timeout_seconds);
  return Call(&Runtime::ExecSync, request);
}

Answer<cri::PullImageResponse> Cri::Pull(const std::string& image, Timeout timeout) const {
  cri::PullImageRequest request;
  request.mutable_image()->set_image(image);
  return Call(&Image::PullImage, request, timeout);
}

Answer<cri::ImageStatusResponse> Cri::ImageStatus(const std::string& image, bool verbose) const {
  cri::ImageStatusRequest request;
  request.mutable_image()->set_image(image);
  request.set_verbose(verbose);
  return Call(&Image::ImageStatus, request);
}

Answer<cri::ListImagesResponse> Cri::ListImages(const std::string& filter) const {
  cri::ListImagesRequest request;
  if (!filter.empty()) request.mutable_filter()->mutable_image()->set_image(filter);
  return Call(&Image::ListImages, request);
}

Answer<cri::RemoveImageResponse> Cri::RemoveImage(const std::string& image) const {
  cri::RemoveImageRequest request;
  request.mutable_image()->set_image(image);
  return Call(&Image::RemoveImage, request);
}

std::string Describe(const grpc::Status& status) {
  return CodeName(static_cast<Code>(status.error_code())) + ": " + status.error_message();
}

}  // namespace crisp::harness
