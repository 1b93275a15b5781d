#include "libs/rpc/peer.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <stop_token>
#include <thread>

#include "libs/base/try.h"
#include "libs/base/units.h"
#include "libs/rpc/internal.h"
#include "libs/rpc/metadata.h"
#include "libs/rpc/tracing.h"
#include "libs/work/operations.h"

namespace crisp::rpc {

Channel Connect(const std::string& socket_path) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(MiB(80).count()));
  arguments.SetMaxSendMessageSize(static_cast<int>(MiB(80).count()));
  // gRPC does not go below 100 ms by itself; who waits for a peer asks it to try at once (Poke).
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 10);
  // The time for one attempt, not between two: a peer on a busy machine needs more than a moment.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 10'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 250);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // A connection of its own, not shared with other channels to the same address.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // A connection that is not used for a while stays.
  arguments.SetInt(GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS, INT_MAX);
  return grpc::CreateCustomChannel("unix:" + socket_path, grpc::InsecureChannelCredentials(),
                                   arguments);
}

Peer::Peer(std::string name, const std::string& socket_path, std::chrono::nanoseconds wait,
           std::stop_token give_up)
    : name_(std::move(name)),
      channel_(Connect(socket_path)),
      wait_(wait),
      give_up_(std::move(give_up)) {}

bool Peer::Ready() const { return channel_->GetState(true) == GRPC_CHANNEL_READY; }

void Peer::Poke() const {
  if (!Ready()) grpc::experimental::ChannelResetConnectionBackoff(channel_.get());
}

Status Peer::WaitReady(const CallContext& cc) const {
  if (Ready()) return Status::Ok();
  const work::Stage stage =
      work::Stage::OfPeer(cc, fmt::format("wait for {}, which is away", name_), name_);
  const auto until = std::min(cc.deadline(), std::chrono::steady_clock::now() + wait_);
  while (!Ready()) {
    if (Status over = cc.Check(); !over.ok()) return std::move(over).While("waiting for {}", name_);
    const auto left = until - std::chrono::steady_clock::now();
    if (left <= left.zero() || given_up()) return internal::Away(*this);
    // In slices, because a stop of the call does not wake gRPC, and a new try is due anyway.
    const auto slice = std::min<std::chrono::nanoseconds>(left, internal::kPokeEvery);
    channel_->WaitForConnected(std::chrono::system_clock::now() +
                               std::chrono::duration_cast<std::chrono::microseconds>(slice));
    Poke();
  }
  return Status::Ok();
}

namespace internal {

Status Away(const Peer& peer) { return Unavailable("{} is away", peer.name()); }

bool ConnectionBroke(const grpc::Status& status, const grpc::ClientContext& context) {
  // A status that our server sent comes with the request id; one of the transport has nothing.
  return status.error_code() == grpc::StatusCode::UNAVAILABLE &&
         !context.GetServerTrailingMetadata().contains(kRequestIdKey);
}

Status RunCall(const CallContext& cc, const Peer& peer, const std::string& name,
               CallOptions options, const std::function<grpc::Status(grpc::ClientContext*)>& call) {
  const work::Stage stage =
      work::Stage::OfPeer(cc, fmt::format("{} of {}", name, peer.name()), peer.name());
  // How long all the waits for a peer that is away may take together, from the first failure on.
  SteadyTime patience = SteadyTime::max();
  while (true) {
    CRISP_TRY(cc.Check());
    CRISP_TRY(peer.WaitReady(cc));
    grpc::ClientContext context;
    if (cc.deadline() != SteadyTime::max()) {
      context.set_deadline(std::chrono::system_clock::now() +
                           std::chrono::duration_cast<std::chrono::microseconds>(cc.Remaining()));
    }
    context.AddMetadata(kRequestIdKey, cc.request_id());
    SendTrace(context);
    const std::stop_callback cancel(cc.stop(), [&context] { context.TryCancel(); });
    const grpc::Status answer = call(&context);
    if (answer.ok()) return Status::Ok();
    if (!ConnectionBroke(answer, context)) return FromGrpc(answer);

    const auto now = std::chrono::steady_clock::now();
    if (patience == SteadyTime::max()) patience = now + peer.wait();
    if (!options.idempotent || now >= patience) {
      return std::move(FromGrpc(answer)).While("{} is away", peer.name());
    }
    // The connection was just lost: the channel notices within a moment that it is not ready.
    std::this_thread::yield();
  }
}

}  // namespace internal
}  // namespace crisp::rpc
