#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/status.h"
#include "libs/rpc/peer.h"
#include "libs/work/operations.h"

namespace crisp::rpc {

struct ForwardOptions {
  /// False (ExecSync): a call that was under way when the connection broke is not sent again.
  bool idempotent = true;
  /// The call is one of them; null: of none.
  work::Operations* operations = nullptr;
  /// See work::Operation::About.
  std::vector<std::string> subjects = {};
};

/// Passes a raw unary call on to a peer: callback in, callback out, no thread, no parsing. For the
/// handlers of WithRawCallbackMethod_*. `method` is "/package.Service/Method". The caller's
/// deadline, cancellation and request id go along. While the peer is away, and when it goes away
/// under the call, the call waits for at most peer.wait(): then UNAVAILABLE names it.
grpc::ServerUnaryReactor* Forward(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer* request, grpc::ByteBuffer* response,
                                  const Peer& peer, const std::string& method,
                                  ForwardOptions options = {});
/// The same with other request bytes than those that came.
grpc::ServerUnaryReactor* Forward(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer& request, grpc::ByteBuffer* response,
                                  const Peer& peer, const std::string& method,
                                  ForwardOptions options = {});

/// Raw bytes to a message and back. kInvalidArgument when they do not parse.
template <typename Message>
Status ParseBytes(const grpc::ByteBuffer& bytes, Message& message);
template <typename Message>
grpc::ByteBuffer ToBytes(const Message& message);
/// The bytes as one string, for messages that are spliced together, and back.
std::string BytesToString(const grpc::ByteBuffer& bytes);
grpc::ByteBuffer StringToBytes(std::string_view text);

template <typename Message>
Status ParseBytes(const grpc::ByteBuffer& bytes, Message& message) {
  if (!message.ParseFromString(BytesToString(bytes))) {
    return InvalidArgument("the request is no valid {}", message.GetTypeName());
  }
  return Status::Ok();
}
template <typename Message>
grpc::ByteBuffer ToBytes(const Message& message) {
  return StringToBytes(message.SerializeAsString());
}

}  // namespace crisp::rpc
