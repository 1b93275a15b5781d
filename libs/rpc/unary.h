#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <utility>

#include "libs/base/call_context.h"
#include "libs/base/status.h"
#include "libs/work/pool.h"

namespace crisp::rpc {

/// The deadline and the request id of a call (metadata "crisp-request-id", or a new one), with the
/// given stop.
CallContext ContextOf(grpc::CallbackServerContext& context, std::stop_token stop = {});

namespace internal {
/// Runs `body` on the lane and finishes the call exactly once, with its status or with the reason
/// why it was not run.
grpc::ServerUnaryReactor* RunUnary(work::Pool& pool, work::Lane lane,
                                   grpc::CallbackServerContext* context,
                                   std::function<Status(const CallContext&)> body);
}  // namespace internal

/// A callback method whose body is straight-line code that may block: `fn(const CallContext&, const
/// Req&, Resp&) -> Status` runs on a thread of the lane (Lane::kFast: inline, memory work only).
/// The caller's leaving requests stop. A full lane answers RESOURCE_EXHAUSTED; a call whose
/// deadline passed in the queue is not started; an exception answers INTERNAL. Also for ByteBuffers
/// (raw methods).
template <typename Req, typename Resp, typename F>
grpc::ServerUnaryReactor* Unary(work::Pool& pool, work::Lane lane,
                                grpc::CallbackServerContext* context, const Req* request,
                                Resp* response, F fn) {
  return internal::RunUnary(pool, lane, context,
                            [request, response, fn = std::move(fn)](const CallContext& cc) {
                              return fn(cc, *request, *response);
                            });
}

/// Answers at once.
grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context, const Status& status);

}  // namespace crisp::rpc
