#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/status.h"
#include "libs/rpc/status.h"

namespace crisp::rpc {

using Channel = std::shared_ptr<grpc::Channel>;

/// A connection of its own to the server on a unix socket; connects lazily and comes back fast (10
/// ms to 250 ms between tries). Messages up to 80 MiB, no transparent retries.
Channel Connect(const std::string& socket_path);

/// Another daemon, as its callers see it: a channel, a name for errors ("rund/1"), and how long a
/// call waits for it when it is away (a daemon that restarts must not fail calls). Copies share the
/// channel. Any thread.
class Peer {
 public:
  Peer() = default;
  Peer(std::string name, const std::string& socket_path, std::chrono::nanoseconds wait);

  const std::string& name() const { return name_; }
  const Channel& channel() const { return channel_; }
  std::chrono::nanoseconds wait() const { return wait_; }
  /// True when connected now (and asks for a connection if not).
  bool Ready() const;
  /// Until connected, at most wait() and the call's deadline: kUnavailable "<name> is away".
  Status WaitReady(const CallContext& cc) const;

 private:
  std::string name_;
  Channel channel_;
  std::chrono::nanoseconds wait_{};
};

namespace internal {
/// Deadline, request id and wait_for_ready; `call` is then run, and cancelled when `cc` is stopped.
Status RunCall(const CallContext& cc, const Peer& peer,
               const std::function<grpc::Status(grpc::ClientContext*)>& call);
}  // namespace internal

/// A blocking unary call: `rpc::Call(cc, peer, stub, &Pods::Stub::StopPod, request)`, with the
/// deadline, the stop and the request id of `cc`. kUnavailable names the peer; the codes of the
/// answer are passed on.
template <typename Stub, typename Req, typename Resp>
Result<Resp> Call(const CallContext& cc, const Peer& peer, Stub& stub,
                  grpc::Status (Stub::*method)(grpc::ClientContext*, const Req&, Resp*),
                  const Req& request) {
  Resp response;
  Status status = internal::RunCall(cc, peer, [&](grpc::ClientContext* context) {
    return (stub.*method)(context, request, &response);
  });
  if (!status.ok()) return status;
  return response;
}

}  // namespace crisp::rpc
