#pragma once

#include <memory>
#include <string>

#include "cri/v1/api.pb.h"
#include "libs/base/result.h"
#include "services/rund/core/parts.h"
#include "services/rund/streaming/server.h"

namespace crisp::rund {

/// Exec, attach and port-forward of the CRI: checks what is asked for, and gives the streaming
/// server what it needs of containers and pods.
class Streams {
 public:
  /// Removes what an earlier run's execs left. kInvalidArgument: rund.streaming_* in the settings.
  static Result<std::unique_ptr<Streams>> Start(const Parts& parts);

  // CRI v1: a URL each. Memory work only. kInvalidArgument names the field; kNotFound;
  // kFailedPrecondition: does not run; and what Server::UrlFor says.
  Result<std::string> Exec(const runtime::v1::ExecRequest& request);
  Result<std::string> Attach(const runtime::v1::AttachRequest& request);
  Result<std::string> PortForward(const runtime::v1::PortForwardRequest& request);

  streaming::Server& server() { return *server_; }

 private:
  explicit Streams(const Parts& parts) : p_(parts) {}
  Result<ExecProcess> StartExec(const runtime::v1::ExecRequest& request) const;
  Result<streaming::AttachedContainer> AttachTo(const ContainerId& id) const;
  Result<streaming::PodSockets> SocketsOf(const std::string& pod) const;

  const Parts& p_;
  std::unique_ptr<streaming::Server> server_;
};

}  // namespace crisp::rund
