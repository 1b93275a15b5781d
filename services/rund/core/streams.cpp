#include "services/rund/core/streams.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/os/namespaces.h"
#include "services/rund/core/exec.h"
#include "services/rund/core/status.h"
#include "services/rund/runtime/conmon.h"

namespace crisp::rund {
namespace {

namespace cri = runtime::v1;

template <typename Request>
Status CheckStreams(const Request& request) {
  if (request.container_id().empty()) return InvalidArgument("container_id is empty");
  if (request.tty() && request.stderr()) {
    return InvalidArgument("stderr: a terminal has none: set tty or stderr, not both");
  }
  if (!request.stdin() && !request.stdout() && !request.stderr()) {
    return InvalidArgument("none of stdin, stdout and stderr is asked for");
  }
  return Status::Ok();
}

Result<PodRef> FindReady(const State& state, const std::string& id) {
  PodRef pod = state.FindPod(PodId(id));
  if (!pod || !IsListed(*pod)) return NotFound("no pod {}", id);
  if (pod->phase() != v1::LIVE) return FailedPrecondition("pod {} is not ready", id);
  return pod;
}

/// Of the namespace that the calling thread is in.
Status MakeSockets(streaming::PodSockets& sockets) {
  constexpr int kType = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  sockets.v4.reset(socket(AF_INET, kType, 0));
  const int error = errno;
  sockets.v6.reset(socket(AF_INET6, kType, 0));
  if (!sockets.v4 && !sockets.v6) return Status::Errno(error, "socket");
  return Status::Ok();
}

}  // namespace

Result<std::unique_ptr<Streams>> Streams::Start(const Parts& parts) {
  const Layout& layout = parts.config.layout;
  CRISP_TRY(os::RemoveTree(layout.ExecsDir()));
  CRISP_TRY(os::MakeDirs(layout.ExecsDir(), 0700));
  std::unique_ptr<Streams> streams(new Streams(parts));
  Streams& self = *streams;
  streaming::Backend backend{
      .exec = [&self](const CallContext& cc, const cri::ExecRequest& r) -> Result<ExecProcess> {
        CRISP_TRY(cc.Check());
        return self.StartExec(r);
      },
      .attach = [&self](const CallContext& cc,
                        const std::string& id) -> Result<streaming::AttachedContainer> {
        CRISP_TRY(cc.Check());
        return self.AttachTo(ContainerId(id));
      },
      .sockets = [&self](const CallContext& cc,
                         const std::string& id) -> Result<streaming::PodSockets> {
        CRISP_TRY(cc.Check());
        return self.SocketsOf(id);
      }};
  self.server_ = CRISP_TRY(streaming::Server::Start(parts.config.streaming, std::move(backend),
                                                    parts.pool, parts.clock));
  return streams;
}

Result<std::string> Streams::Exec(const cri::ExecRequest& request) {
  CRISP_TRY(CheckStreams(request));
  if (request.cmd().empty()) return InvalidArgument("cmd is empty");
  CRISP_TRY(FindRunning(p_.state, ContainerId(request.container_id())));
  return server_->UrlFor(request);
}

Result<std::string> Streams::Attach(const cri::AttachRequest& request) {
  CRISP_TRY(CheckStreams(request));
  CRISP_TRY(FindRunning(p_.state, ContainerId(request.container_id())));
  return server_->UrlFor(request);
}

Result<std::string> Streams::PortForward(const cri::PortForwardRequest& request) {
  if (request.pod_sandbox_id().empty()) return InvalidArgument("pod_sandbox_id is empty");
  for (const int port : request.port()) {
    if (port < 1 || port > 65535) return InvalidArgument("port: {} is no TCP port", port);
  }
  CRISP_TRY(FindReady(p_.state, request.pod_sandbox_id()));
  return server_->UrlFor(request);
}

Result<ExecProcess> Streams::StartExec(const cri::ExecRequest& request) const {
  const ExecArgs args = CRISP_TRY(PlanExec(p_, ContainerId(request.container_id()), request.cmd(),
                                           request.tty(), p_.config.layout.ExecsDir()));
  return rund::StartExec(args, {.in = request.stdin(),
                                .out = request.stdout(),
                                .err = request.stderr(),
                                .tty = request.tty()});
}

Result<streaming::AttachedContainer> Streams::AttachTo(const ContainerId& id) const {
  const ContainerRef container = CRISP_TRY(FindRunning(p_.state, id));
  const std::string bundle = p_.config.layout.Bundle(id);
  streaming::AttachedContainer attached;
  attached.tty = container->config().tty();
  attached.takes_stdin = container->config().stdin();
  attached.stdin_once = container->config().stdin_once();
  attached.socket = CRISP_TRY(ConnectMonitor(bundle));
  attached.control = CRISP_TRY(os::Open(bundle + "/ctl", O_WRONLY | O_NONBLOCK));
  return attached;
}

Result<streaming::PodSockets> Streams::SocketsOf(const std::string& id) const {
  const PodRef pod = CRISP_TRY(FindReady(p_.state, id));
  streaming::PodSockets sockets;
  if (pod->netns_path().empty()) {
    CRISP_TRY(MakeSockets(sockets));
  } else {
    CRISP_TRY(os::RunInNamespace(pod->netns_path(), [&sockets] { return MakeSockets(sockets); }));
  }
  return sockets;
}

}  // namespace crisp::rund
