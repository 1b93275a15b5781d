#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/status.h"
#include "libs/rpc/about.h"
#include "libs/rpc/tracing.h"
#include "libs/work/operations.h"
#include "libs/work/pool.h"

namespace crisp::rpc {

/// The deadline and the request id of a call (metadata "crisp-request-id", or a new one), with the
/// given stop. Ours is a little before its caller's, who would hear of nothing but the time else.
CallContext ContextOf(grpc::CallbackServerContext& context, std::stop_token stop = {});

namespace internal {
/// Runs `body` on the lane and finishes the call exactly once, with its status or with the reason
/// why it was not run. Where it may wait it is one of the pool's operations.
grpc::ServerUnaryReactor* RunUnary(work::Pool& pool, work::Lane lane,
                                   grpc::CallbackServerContext* context,
                                   const std::function<work::Operation::About()>& about,
                                   std::function<Status(const CallContext&)> body);

/// A call whose answer comes from elsewhere. Lives as long as anybody may still reply.
class LateReactor final : public grpc::ServerUnaryReactor,
                          public std::enable_shared_from_this<LateReactor> {
 public:
  LateReactor(grpc::CallbackServerContext* context, work::Operations& operations,
              work::Operation::About about);
  void Begin() { self_ = shared_from_this(); }
  const CallContext& context() const { return context_; }
  const trace::Context& span() const { return span_; }
  /// The first one counts; `fill` puts the answer into gRPC's message, which is there only until
  /// then.
  void Reply(const Status& status, const std::function<void()>& fill = nullptr);

  void OnCancel() override;
  void OnDone() override;

 private:
  const CallContext context_;
  const trace::Context span_;
  std::atomic<bool> finished_{false};
  std::shared_ptr<LateReactor> self_;
};
void RunLater(work::Pool& pool, work::Lane lane, const std::shared_ptr<LateReactor>& call,
              std::function<void()> body);
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
  return internal::RunUnary(
      pool, lane, context, [request] { return AboutCall(*request); },
      [request, response, fn = std::move(fn)](const CallContext& cc) {
        return fn(cc, *request, *response);
      });
}

/// A callback method that is answered later, by whoever: `fn(const CallContext&, const Req&,
/// reply)` runs on a thread of the lane and hands `reply`, a std::function<void(Result<Resp>)>, on;
/// it may be called on any thread, once, and no thread is held until then. The caller's leaving
/// ends the call, not the work: a reply after that is dropped.
template <typename Req, typename Resp, typename F>
grpc::ServerUnaryReactor* UnaryLater(work::Pool& pool, work::Lane lane,
                                     grpc::CallbackServerContext* context, const Req* request,
                                     Resp* response, F fn) {
  auto call =
      std::make_shared<internal::LateReactor>(context, pool.operations(), AboutCall(*request));
  call->Begin();
  const std::function<void(Result<Resp>)> reply = [call, response](Result<Resp> answer) {
    const Status status = answer.ok() ? Status::Ok() : answer.status();
    call->Reply(status, [response, &answer] { *response = *std::move(answer); });
  };
  // gRPC's request is gone once the caller is.
  internal::RunLater(pool, lane, call, [call, reply, fn = std::move(fn), copy = Req(*request)] {
    fn(call->context(), copy, reply);
  });
  return call.get();
}

/// Answers at once.
grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context, const Status& status);

}  // namespace crisp::rpc
