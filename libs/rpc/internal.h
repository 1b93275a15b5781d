#pragma once

#include <grpcpp/client_context.h>

#include <chrono>

#include "libs/base/status.h"
#include "libs/rpc/peer.h"

namespace crisp::rpc::internal {

/// How often a call that waits for a peer asks its channel to try again.
inline constexpr std::chrono::milliseconds kPokeEvery{20};

Status Away(const Peer& peer);

/// True when the status comes from a lost or refused connection, not from the peer's own answer.
bool ConnectionBroke(const grpc::Status& status, const grpc::ClientContext& context);

}  // namespace crisp::rpc::internal
