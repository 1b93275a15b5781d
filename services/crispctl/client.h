#pragma once

#include <sys/types.h>

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "cri/v1/api.pb.h"
#include "crisp/daemon/v1/daemon.pb.h"
#include "crisp/imaged/v1/imaged.pb.h"
#include "libs/base/result.h"
#include "libs/settings/settings.h"

namespace crisp::ctl {

/// Where crisp is: what --socket, CRISP_ENDPOINT and --config say, in this order.
struct Endpoint {
  std::string socket;    // the CRI's
  std::string run_root;  // the daemons' own sockets are below it
};
/// The socket that --socket or else CRISP_ENDPOINT names, as a path; empty: none does.
std::string NamedSocket(const std::string& socket_flag);
/// `socket_flag` and `config_flag` may be empty. Takes "unix:///path" too.
Result<Endpoint> FindEndpoint(const std::string& socket_flag, const std::string& config_flag);

/// In the order in which they are told of.
inline constexpr std::array<const char*, 4> kServices = {"crid", "imaged", "netd", "rund"};
/// The instances of a daemon ("rund") that have a socket; "1" when none has.
std::vector<std::string> InstancesOf(const Endpoint& endpoint, const std::string& service);
std::string SocketOf(const Endpoint& endpoint, const std::string& service,
                     const std::string& instance);
/// "crisp-rund@1"
std::string UnitOf(const std::string& service, const std::string& instance);

/// A daemon that is there, or should be.
struct DaemonPlace {
  std::string service;
  std::string instance;
  std::string socket;
};
/// All instances of all services.
std::vector<DaemonPlace> DaemonsOf(const Endpoint& endpoint);

/// CRI calls, one after the other, on crisp's socket. Failures are one sentence for a person.
class Client {
 public:
  explicit Client(Endpoint endpoint);
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client();

  const Endpoint& endpoint() const { return endpoint_; }
  /// How long each call may take from now on, in place of some minutes.
  void LimitCalls(std::chrono::nanoseconds timeout);
  /// Calls from now on end with kCancelled when `stop` is requested; without one, never. What crisp
  /// has begun for such a call may go on without us.
  void CancelOn(std::stop_token stop);
  /// kUnavailable with what to do about it when nobody serves the CRI socket.
  Status Reach() const;

  Result<runtime::v1::VersionResponse> Version();
  Result<runtime::v1::StatusResponse> NodeStatus(bool verbose);
  Result<runtime::v1::ListImagesResponse> ListImages();
  Result<runtime::v1::ImageStatusResponse> ImageStatus(const std::string& image);
  Status RemoveImage(const std::string& image);
  /// With what the layers do meanwhile, from imaged itself where its socket is there.
  Result<std::string> Pull(const std::string& image, const runtime::v1::AuthConfig& auth,
                           const std::function<void(const imaged::v1::PullEvent&)>& progress);
  using Sink = std::function<Status(std::string_view)>;
  /// Sends an archive, which `send` hands to its sink, to imaged itself. kUnavailable: its socket
  /// is dead.
  Result<imaged::v1::ImportResponse> Import(const std::string& name,
                                            const std::function<Status(const Sink&)>& send) const;
  Status Export(const std::string& image, const Sink& sink) const;
  Result<runtime::v1::ListPodSandboxResponse> ListPods();
  Result<std::string> RunPod(const runtime::v1::PodSandboxConfig& config,
                             const std::string& handler);
  Status StopPod(const std::string& id);
  Status RemovePod(const std::string& id);
  /// CNI CHECK of a pod, by netd itself. False: its network's configuration has none, nobody was
  /// asked. kNotFound: it has no network of its own; kUnavailable: no netd is there; kInternal: the
  /// plugin's words.
  Result<bool> CheckNetwork(const std::string& pod_id) const;
  Result<runtime::v1::ListContainersResponse> ListContainers();
  Result<std::string> CreateContainer(const runtime::v1::CreateContainerRequest& request);
  Status StartContainer(const std::string& id);
  Status StopContainer(const std::string& id, std::chrono::seconds grace);
  /// `timeout` 0: the node's own.
  Status CheckpointContainer(const std::string& id, const std::string& location,
                             std::chrono::seconds timeout);
  Status RemoveContainer(const std::string& id);
  Result<runtime::v1::ContainerStatusResponse> ContainerStatus(const std::string& id,
                                                               bool verbose = false);
  Result<runtime::v1::ListContainerStatsResponse> ListContainerStats();
  /// Calls `show` for each event from now on, until the stream ends: with kUnavailable when crisp
  /// stops, and never by itself.
  Status FollowEvents(const std::function<void(const runtime::v1::ContainerEventResponse&)>& show);
  Result<runtime::v1::ExecSyncResponse> ExecSync(const std::string& id,
                                                 const std::vector<std::string>& command,
                                                 std::chrono::seconds timeout);
  // The URL of a session.
  Result<std::string> Exec(const runtime::v1::ExecRequest& request);
  Result<std::string> Attach(const runtime::v1::AttachRequest& request);
  Result<std::string> PortForward(const runtime::v1::PortForwardRequest& request);

  /// A daemon's own words. kUnavailable: its socket is dead.
  static Result<daemon::v1::InfoResponse> Info(const std::string& socket);
  /// What it runs with. kUnavailable: its socket is dead; kUnimplemented: it is too old to say.
  static Result<settings::Settings> SettingsOf(const std::string& socket);
  /// What a daemon is doing. kUnavailable: its socket is dead; kDeadlineExceeded: it does not
  /// answer.
  static Result<daemon::v1::OperationsResponse> Operations(const std::string& socket);
  /// The process that listens on a socket; 0: none.
  static pid_t ListenerOf(const std::string& socket);

 private:
  struct Impl;
  Endpoint endpoint_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace crisp::ctl
