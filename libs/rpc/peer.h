#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/status.h"
#include "libs/rpc/about.h"
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
  /// `give_up`: from its request on nobody waits for a peer that is away (we stop ourselves).
  Peer(std::string name, const std::string& socket_path, std::chrono::nanoseconds wait,
       std::stop_token give_up = {});

  const std::string& name() const { return name_; }
  const Channel& channel() const { return channel_; }
  std::chrono::nanoseconds wait() const { return wait_; }
  bool given_up() const { return give_up_.stop_requested(); }
  /// True when connected now (and asks for a connection if not).
  bool Ready() const;
  /// Not connected: try now, whatever the back-off (its socket has appeared, say).
  void Poke() const;
  /// Until connected, at most wait() and the call's deadline: kUnavailable "<name> is away".
  Status WaitReady(const CallContext& cc) const;

 private:
  std::string name_;
  Channel channel_;
  std::chrono::nanoseconds wait_{};
  std::stop_token give_up_;
};

struct CallOptions {
  /// False: a call that was under way when the connection broke is not sent again. True for all of
  /// our internal methods.
  bool idempotent = true;
};

namespace internal {
/// Waits for the peer, runs `call`, which has this `name`, with the deadline and the request id of
/// `cc`, cancels it when `cc` is stopped, runs it again when the connection broke.
Status RunCall(const CallContext& cc, const Peer& peer, const std::string& name,
               CallOptions options, const std::function<grpc::Status(grpc::ClientContext*)>& call);
}  // namespace internal

/// A blocking unary call: `rpc::Call(cc, peer, stub, &Pods::Stub::StopPod, request)`, with the
/// deadline, the stop and the request id of `cc`. While the peer is away, and when it goes away
/// under the call, it waits for at most peer.wait(): then kUnavailable names it. Codes of the
/// peer's answer are passed on.
template <typename Stub, typename Req, typename Resp>
Result<Resp> Call(const CallContext& cc, const Peer& peer, Stub& stub,
                  grpc::Status (Stub::*method)(grpc::ClientContext*, const Req&, Resp*),
                  const Req& request, CallOptions options = {}) {
  Resp response;
  Status status = internal::RunCall(
      cc, peer, CallName<Req>(), options,
      [&](grpc::ClientContext* context) { return (stub.*method)(context, request, &response); });
  if (!status.ok()) return status;
  return response;
}

}  // namespace crisp::rpc
