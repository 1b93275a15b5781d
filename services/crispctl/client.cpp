#include "services/crispctl/client.h"

#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "cri/v1/api.grpc.pb.h"
#include "crisp/daemon/v1/daemon.grpc.pb.h"
#include "crisp/imaged/v1/imaged.grpc.pb.h"
#include "crisp/netd/v1/netd.grpc.pb.h"
#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/os/unique_fd.h"
#include "libs/rpc/peer.h"

namespace crisp::ctl {
namespace {

using runtime::v1::ImageService;
using runtime::v1::RuntimeService;

constexpr std::chrono::minutes kCall{2};
constexpr std::chrono::minutes kLongCall{5};

/// A connection, to nobody's gRPC. kUnavailable with what to do about it when nobody serves it.
Result<os::UniqueFd> ConnectTo(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return InvalidArgument("{}: too long for a unix socket (at most {} characters)", path,
                           sizeof(address.sun_path) - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  os::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Status::Errno(errno, "socket");
  // The sockets API takes every kind of address as this one.
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    return fd;
  }
  constexpr std::string_view kStart =
      "start it with 'systemctl start crisp.target', or name its socket with --socket";
  switch (errno) {
    case ENOENT: return Unavailable("is crisp running? There is no socket at {}: {}", path, kStart);
    case ECONNREFUSED:
      return Unavailable("is crisp running? Nobody listens on {}: {}", path, kStart);
    case EACCES:
    case EPERM:
      return PermissionDenied("{} may not be opened by this user: try again as root", path);
    default: return Status::Errno(errno, "connect to {}", path);
  }
}

/// Connects once to see why not.
Status Probe(const std::string& path) { return ConnectTo(path).status(); }

std::string PathOf(const std::string& endpoint) {
  for (const std::string_view scheme : {"unix://", "unix:"}) {
    if (endpoint.starts_with(scheme)) return endpoint.substr(scheme.size());
  }
  return endpoint;
}

}  // namespace

std::string NamedSocket(const std::string& socket_flag) {
  const char* from = std::getenv("CRISP_ENDPOINT");
  return PathOf(socket_flag.empty() && from != nullptr ? from : socket_flag);
}

namespace {

/// Where the default file is wrong by now, and a node runs at its usual place all the same, that
/// one is meant.
Result<settings::Settings> SettingsForEndpoint(const std::string& config_flag) {
  auto loaded =
      settings::Load(config_flag.empty() ? std::string(settings::kDefaultPath) : config_flag);
  const settings::Settings usual = settings::Settings().Resolved();
  if (!loaded.ok() && config_flag.empty() && os::Exists(usual.crid.socket)) return usual;
  return loaded;
}

}  // namespace

Result<Endpoint> FindEndpoint(const std::string& socket_flag, const std::string& config_flag) {
  Endpoint endpoint{.socket = NamedSocket(socket_flag)};
  if (!endpoint.socket.empty()) {
    // Usually the CRI socket is where the daemons' directories are.
    const std::string beside = std::filesystem::path(endpoint.socket).parent_path();
    if (config_flag.empty() && os::IsDirectory(beside + "/rund")) {
      endpoint.run_root = beside;
      return endpoint;
    }
  }
  const settings::Settings settings = CRISP_TRY(SettingsForEndpoint(config_flag));
  if (endpoint.socket.empty()) endpoint.socket = settings.crid.socket;
  endpoint.run_root = settings.run_root;
  return endpoint;
}

std::vector<std::string> InstancesOf(const Endpoint& endpoint, const std::string& service) {
  constexpr std::string_view kEnd = ".sock";
  std::vector<std::string> names;
  const std::string dir = endpoint.run_root + "/" + service;
  for (const std::string& file : os::ListDir(dir).value_or(std::vector<std::string>())) {
    if (!file.ends_with(kEnd)) continue;
    std::string name = file.substr(0, file.size() - kEnd.size());
    if (name.find('.') == std::string::npos) names.push_back(std::move(name));
  }
  if (names.empty()) names.emplace_back("1");
  return names;
}

std::string SocketOf(const Endpoint& endpoint, const std::string& service,
                     const std::string& instance) {
  return fmt::format("{}/{}/{}.sock", endpoint.run_root, service, instance);
}

std::string UnitOf(const std::string& service, const std::string& instance) {
  return service == "crid" ? "crisp-crid" : fmt::format("crisp-{}@{}", service, instance);
}

std::vector<DaemonPlace> DaemonsOf(const Endpoint& endpoint) {
  std::vector<DaemonPlace> daemons;
  for (const std::string service : kServices) {
    for (const std::string& instance : InstancesOf(endpoint, service)) {
      daemons.push_back({service, instance, SocketOf(endpoint, service, instance)});
    }
  }
  return daemons;
}

struct Client::Impl {
  explicit Impl(const std::string& socket)
      : peer("crisp", socket, std::chrono::seconds(1)),
        runtime(RuntimeService::NewStub(peer.channel())),
        image(ImageService::NewStub(peer.channel())) {}

  template <typename Stub, typename Req, typename Resp>
  Result<Resp> Call(Stub& stub,
                    grpc::Status (Stub::*method)(grpc::ClientContext*, const Req&, Resp*),
                    const Req& request, std::chrono::nanoseconds timeout = kCall) {
    // Of its own for each, so that crispctl why can tell one from the others.
    const CallContext cc(std::chrono::steady_clock::now() + std::min(timeout, limit), stop,
                         fmt::format("crispctl-{}-{}", getpid(), ++calls));
    return rpc::Call(cc, peer, stub, method, request, {.idempotent = false});
  }

  std::chrono::nanoseconds limit = std::chrono::hours(1);
  std::stop_token stop;
  std::atomic<int> calls = 0;

  rpc::Peer peer;
  std::unique_ptr<RuntimeService::Stub> runtime;
  std::unique_ptr<ImageService::Stub> image;
};

Client::Client(Endpoint endpoint)
    : endpoint_(std::move(endpoint)), impl_(std::make_unique<Impl>(endpoint_.socket)) {}
Client::~Client() = default;

void Client::LimitCalls(std::chrono::nanoseconds timeout) { impl_->limit = timeout; }
void Client::CancelOn(std::stop_token stop) { impl_->stop = std::move(stop); }

Status Client::Reach() const { return Probe(endpoint_.socket); }

Result<runtime::v1::VersionResponse> Client::Version() {
  return impl_->Call(*impl_->runtime, &RuntimeService::Stub::Version,
                     runtime::v1::VersionRequest());
}

Result<runtime::v1::StatusResponse> Client::NodeStatus(bool verbose) {
  runtime::v1::StatusRequest request;
  request.set_verbose(verbose);
  return impl_->Call(*impl_->runtime, &RuntimeService::Stub::Status, request);
}

Result<runtime::v1::ListImagesResponse> Client::ListImages() {
  return impl_->Call(*impl_->image, &ImageService::Stub::ListImages,
                     runtime::v1::ListImagesRequest());
}

Result<runtime::v1::ImageStatusResponse> Client::ImageStatus(const std::string& image) {
  runtime::v1::ImageStatusRequest request;
  request.mutable_image()->set_image(image);
  return impl_->Call(*impl_->image, &ImageService::Stub::ImageStatus, request);
}

Status Client::RemoveImage(const std::string& image) {
  runtime::v1::RemoveImageRequest request;
  request.mutable_image()->set_image(image);
  return impl_->Call(*impl_->image, &ImageService::Stub::RemoveImage, request).status();
}

Result<std::string> Client::Pull(
    const std::string& image, const runtime::v1::AuthConfig& auth,
    const std::function<void(const imaged::v1::PullEvent&)>& progress) {
  runtime::v1::PullImageRequest request;
  request.mutable_image()->set_image(image);
  if (auth.ByteSizeLong() > 0) *request.mutable_auth() = auth;
  const std::string own = endpoint_.run_root + "/imaged/1.sock";
  if (Probe(own).ok()) {
    const auto stub = imaged::v1::Pulls::NewStub(rpc::Connect(own));
    grpc::ClientContext context;
    const std::stop_callback cancel(impl_->stop, [&context] { context.TryCancel(); });
    const auto stream = stub->Pull(&context, request);
    imaged::v1::PullEvent event;
    std::string image_ref;
    while (stream->Read(&event)) {
      if (!event.image_ref().empty()) image_ref = event.image_ref();
      progress(event);
    }
    CRISP_TRY(rpc::FromGrpc(stream->Finish()));
    return image_ref;
  }
  auto answer = CRISP_TRY(
      impl_->Call(*impl_->image, &ImageService::Stub::PullImage, request, std::chrono::hours(24)));
  return answer.image_ref();
}

Result<imaged::v1::ImportResponse> Client::Import(
    const std::string& name, const std::function<Status(const Sink&)>& send) const {
  const std::string own = endpoint_.run_root + "/imaged/1.sock";
  CRISP_TRY(Probe(own));
  const auto stub = imaged::v1::Archives::NewStub(rpc::Connect(own));
  grpc::ClientContext context;
  imaged::v1::ImportResponse response;
  const auto writer = stub->Import(&context, &response);
  imaged::v1::ImportRequest request;
  request.set_name(name);
  bool refused = false;  // then the call's own status says why
  const Status sent = send([&](std::string_view bytes) {
    request.set_data(std::string(bytes));
    refused = !writer->Write(request);
    request.clear_name();
    return refused ? Cancelled("imaged takes no more") : Status::Ok();
  });
  if (!sent.ok() && !refused) {
    context.TryCancel();
    static_cast<void>(writer->Finish());
    return sent;
  }
  writer->WritesDone();
  CRISP_TRY(rpc::FromGrpc(writer->Finish()));
  return response;
}

Status Client::Export(const std::string& image, const Sink& sink) const {
  const std::string own = endpoint_.run_root + "/imaged/1.sock";
  CRISP_TRY(Probe(own));
  const auto stub = imaged::v1::Archives::NewStub(rpc::Connect(own));
  grpc::ClientContext context;
  imaged::v1::ExportRequest request;
  request.set_image(image);
  const auto reader = stub->Export(&context, request);
  imaged::v1::ExportChunk chunk;
  while (reader->Read(&chunk)) {
    if (Status taken = sink(chunk.data()); !taken.ok()) {
      context.TryCancel();
      static_cast<void>(reader->Finish());
      return taken;
    }
  }
  return rpc::FromGrpc(reader->Finish());
}

Result<runtime::v1::ListPodSandboxResponse> Client::ListPods() {
  return impl_->Call(*impl_->runtime, &RuntimeService::Stub::ListPodSandbox,
                     runtime::v1::ListPodSandboxRequest());
}

Result<std::string> Client::RunPod(const runtime::v1::PodSandboxConfig& config,
                                   const std::string& handler) {
  runtime::v1::RunPodSandboxRequest request;
  *request.mutable_config() = config;
  request.set_runtime_handler(handler);
  auto answer = CRISP_TRY(
      impl_->Call(*impl_->runtime, &RuntimeService::Stub::RunPodSandbox, request, kLongCall));
  return answer.pod_sandbox_id();
}

Status Client::StopPod(const std::string& id) {
  runtime::v1::StopPodSandboxRequest request;
  request.set_pod_sandbox_id(id);
  return impl_->Call(*impl_->runtime, &RuntimeService::Stub::StopPodSandbox, request, kLongCall)
      .status();
}

Status Client::RemovePod(const std::string& id) {
  runtime::v1::RemovePodSandboxRequest request;
  request.set_pod_sandbox_id(id);
  return impl_->Call(*impl_->runtime, &RuntimeService::Stub::RemovePodSandbox, request, kLongCall)
      .status();
}

// Whichever instance made it: they share their records.
Result<bool> Client::CheckNetwork(const std::string& pod_id) const {
  Status unreached;
  for (const std::string& instance : InstancesOf(endpoint_, "netd")) {
    const std::string socket = SocketOf(endpoint_, "netd", instance);
    unreached = Probe(socket);
    if (!unreached.ok()) continue;
    netd::v1::CheckRequest request;
    request.set_pod_id(pod_id);
    const rpc::Peer peer("netd/" + instance, socket, std::chrono::seconds(1));
    const auto answer = CRISP_TRY(rpc::Call(CallContext::Background(kLongCall, "crispctl"), peer,
                                            *netd::v1::Network::NewStub(peer.channel()),
                                            &netd::v1::Network::Stub::Check, request));
    return !answer.unasked();
  }
  return unreached;
}

Result<runtime::v1::ListContainersResponse> Client::ListContainers() {
  return impl_->Call(*impl_->runtime, &RuntimeService::Stub::ListContainers,
                     runtime::v1::ListContainersRequest());
}

Result<std::string> Client::CreateContainer(const runtime::v1::CreateContainerRequest& request) {
  auto answer = CRISP_TRY(
      impl_->Call(*impl_->runtime, &RuntimeService::Stub::CreateContainer, request, kLongCall));
  return answer.container_id();
}

Status Client::StartContainer(const std::string& id) {
  runtime::v1::StartContainerRequest request;
  request.set_container_id(id);
  return impl_->Call(*impl_->runtime, &RuntimeService::Stub::StartContainer, request).status();
}

Status Client::StopContainer(const std::string& id, std::chrono::seconds grace) {
  runtime::v1::StopContainerRequest request;
  request.set_container_id(id);
  request.set_timeout(grace.count());
  return impl_->Call(*impl_->runtime, &RuntimeService::Stub::StopContainer, request, grace + kCall)
      .status();
}

Status Client::CheckpointContainer(const std::string& id, const std::string& location,
                                   std::chrono::seconds timeout) {
  runtime::v1::CheckpointContainerRequest request;
  request.set_container_id(id);
  request.set_location(location);
  request.set_timeout(timeout.count());
  // The node ends it, and says why.
  const auto patience = timeout.count() == 0 ? std::chrono::hours(1) : timeout;
  return impl_
      ->Call(*impl_->runtime, &RuntimeService::Stub::CheckpointContainer, request, patience + kCall)
      .status();
}

Status Client::RemoveContainer(const std::string& id) {
  runtime::v1::RemoveContainerRequest request;
  request.set_container_id(id);
  return impl_->Call(*impl_->runtime, &RuntimeService::Stub::RemoveContainer, request).status();
}

Result<runtime::v1::ContainerStatusResponse> Client::ContainerStatus(const std::string& id,
                                                                     bool verbose) {
  runtime::v1::ContainerStatusRequest request;
  request.set_container_id(id);
  request.set_verbose(verbose);
  return impl_->Call(*impl_->runtime, &RuntimeService::Stub::ContainerStatus, request);
}

Result<runtime::v1::ExecSyncResponse> Client::ExecSync(const std::string& id,
                                                       const std::vector<std::string>& command,
                                                       std::chrono::seconds timeout) {
  runtime::v1::ExecSyncRequest request;
  request.set_container_id(id);
  for (const std::string& word : command) request.add_cmd(word);
  request.set_timeout(timeout.count());
  const std::chrono::nanoseconds limit =
      timeout.count() > 0 ? timeout + kCall : std::chrono::nanoseconds(std::chrono::hours(24));
  return impl_->Call(*impl_->runtime, &RuntimeService::Stub::ExecSync, request, limit);
}

Result<runtime::v1::ListContainerStatsResponse> Client::ListContainerStats() {
  return impl_->Call(*impl_->runtime, &RuntimeService::Stub::ListContainerStats,
                     runtime::v1::ListContainerStatsRequest());
}

Status Client::FollowEvents(
    const std::function<void(const runtime::v1::ContainerEventResponse&)>& show) {
  grpc::ClientContext context;
  const auto stream = impl_->runtime->GetContainerEvents(&context, runtime::v1::GetEventsRequest());
  runtime::v1::ContainerEventResponse event;
  while (stream->Read(&event)) show(event);
  return rpc::FromGrpc(stream->Finish());
}

Result<std::string> Client::Exec(const runtime::v1::ExecRequest& request) {
  return CRISP_TRY(impl_->Call(*impl_->runtime, &RuntimeService::Stub::Exec, request)).url();
}

Result<std::string> Client::Attach(const runtime::v1::AttachRequest& request) {
  return CRISP_TRY(impl_->Call(*impl_->runtime, &RuntimeService::Stub::Attach, request)).url();
}

Result<std::string> Client::PortForward(const runtime::v1::PortForwardRequest& request) {
  return CRISP_TRY(impl_->Call(*impl_->runtime, &RuntimeService::Stub::PortForward, request)).url();
}

namespace {

/// One call of daemon.v1.Daemon.
template <typename Req, typename Resp>
Result<Resp> AskDaemon(const std::string& socket,
                       grpc::Status (daemon::v1::Daemon::Stub::*method)(grpc::ClientContext*,
                                                                        const Req&, Resp*)) {
  CRISP_TRY(Probe(socket));
  const rpc::Peer peer("the daemon", socket, std::chrono::seconds(1));
  return rpc::Call(CallContext::Background(std::chrono::seconds(3), "crispctl"), peer,
                   *daemon::v1::Daemon::NewStub(peer.channel()), method, Req());
}

}  // namespace

Result<daemon::v1::InfoResponse> Client::Info(const std::string& socket) {
  return AskDaemon(socket, &daemon::v1::Daemon::Stub::Info);
}

Result<settings::Settings> Client::SettingsOf(const std::string& socket) {
  const daemon::v1::SettingsResponse answer =
      CRISP_TRY(AskDaemon(socket, &daemon::v1::Daemon::Stub::Settings));
  return settings::Parse(answer.in_force(), "the settings of " + socket);
}

Result<daemon::v1::OperationsResponse> Client::Operations(const std::string& socket) {
  return AskDaemon(socket, &daemon::v1::Daemon::Stub::Operations);
}

pid_t Client::ListenerOf(const std::string& socket) {
  const Result<os::UniqueFd> connection = ConnectTo(socket);
  if (!connection.ok()) return 0;
  ucred listener{};
  socklen_t size = sizeof listener;
  const int got = getsockopt(connection->get(), SOL_SOCKET, SO_PEERCRED, &listener, &size);
  return got == 0 ? listener.pid : 0;
}

}  // namespace crisp::ctl
