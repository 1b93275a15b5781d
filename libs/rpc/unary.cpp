#include "libs/rpc/unary.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <string>

#include "libs/base/ids.h"
#include "libs/log/log.h"
#include "libs/rpc/metadata.h"
#include "libs/rpc/status.h"

namespace crisp::rpc {
namespace {

constexpr std::size_t kMaxRequestId = 64;
/// How long before its caller's deadline a call is over, at most; of a short one the part below.
constexpr std::chrono::milliseconds kMaxMargin{500};
constexpr int kMarginPart = 20;

/// Short, and unlike those of other daemons and other runs.
std::string NewRequestId() {
  static const std::string kRun = RandomIds().Next().substr(0, 6);
  static std::atomic<std::uint64_t> next{1};
  return fmt::format("{}-{}", kRun, next.fetch_add(1, std::memory_order_relaxed));
}

SteadyTime SteadyDeadline(const grpc::CallbackServerContext& context) {
  const gpr_timespec deadline = context.raw_deadline();
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) return SteadyTime::max();
  const gpr_timespec left = gpr_time_sub(gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC),
                                         gpr_now(GPR_CLOCK_MONOTONIC));
  const auto span = std::chrono::seconds(left.tv_sec) + std::chrono::nanoseconds(left.tv_nsec);
  if (span > std::chrono::hours(24 * 365)) return SteadyTime::max();
  const std::chrono::nanoseconds margin =
      std::min<std::chrono::nanoseconds>(kMaxMargin, span / kMarginPart);
  return std::chrono::steady_clock::now() + span - margin;
}

/// Lives until OnDone, which gRPC calls after Finish; by then the body has ended (Finish is its
/// last act), so that the request, the response and this object are there as long as it needs them.
class Reactor final : public grpc::ServerUnaryReactor {
 public:
  explicit Reactor(grpc::CallbackServerContext* context)
      : context_(ContextOf(*context, stop_.get_token())) {}

  const CallContext& context() const { return context_; }
  void Track(work::Operations& operations, work::Operation::About about) {
    context_ = operations.Track(context_, std::move(about));
  }
  void Run(const std::function<Status(const CallContext&)>& body);
  void Reply(Status status) {
    if (const auto& operation = context_.operation(); operation != nullptr) {
      status = operation->Answer(std::move(status), /*ask_peers=*/true);
    }
    context_ = context_.PartOf(nullptr);  // it is over, if nobody goes on with it
    Finish(ToGrpc(status));
  }

  void OnCancel() override { stop_.request_stop(); }
  void OnDone() override { delete this; }

 private:
  std::stop_source stop_;
  CallContext context_;
};

Status RunBody(const std::function<Status(const CallContext&)>& body, const CallContext& cc) {
  try {
    return body(cc);
  } catch (const std::exception& e) {
    // A library's exception that its home should have turned into a Status: our bug.
    return Internal("unexpected exception: {}", e.what());
  }
}

void Reactor::Run(const std::function<Status(const CallContext&)>& body) {
  if (context_.operation() != nullptr) context_.operation()->Runs();
  Reply(RunBody(body, context_));
}

}  // namespace

CallContext ContextOf(grpc::CallbackServerContext& context, std::stop_token stop) {
  std::string id;
  const auto& metadata = context.client_metadata();
  if (const auto found = metadata.find(kRequestIdKey); found != metadata.end()) {
    id.assign(found->second.data(), std::min(found->second.size(), kMaxRequestId));
  } else {
    id = NewRequestId();
  }
  // Back to the caller, and to our own line about a failed call (see server.cpp).
  context.AddTrailingMetadata(kRequestIdKey, id);
  return {SteadyDeadline(context), std::move(stop), std::move(id)};
}

namespace internal {

grpc::ServerUnaryReactor* RunUnary(work::Pool& pool, work::Lane lane,
                                   grpc::CallbackServerContext* context,
                                   const std::function<work::Operation::About()>& about,
                                   std::function<Status(const CallContext&)> body) {
  auto* reactor = new Reactor(context);
  const trace::Scope scope(TraceOf(*context));
  if (lane == work::Lane::kFast) {
    reactor->Run(body);
    return reactor;
  }
  reactor->Track(pool.operations(), about());
  reactor->context().operation()->Queued(work::LaneName(lane));
  Status submitted = pool.Submit(
      lane, reactor->context(), [reactor, body = std::move(body)] { reactor->Run(body); },
      [reactor](const Status& why) { reactor->Reply(why); });
  if (!submitted.ok()) reactor->Reply(submitted);
  return reactor;
}

LateReactor::LateReactor(grpc::CallbackServerContext* context, work::Operations& operations,
                         work::Operation::About about)
    : context_(operations.Track(ContextOf(*context), std::move(about))), span_(TraceOf(*context)) {}

void LateReactor::Reply(const Status& status, const std::function<void()>& fill) {
  // Also for those who ask later, when nobody waits for it any more.
  const Status answer = context_.operation()->Answer(status);
  if (finished_.exchange(true)) return;
  if (answer.ok() && fill) fill();
  Finish(ToGrpc(answer));
}

void LateReactor::OnCancel() { Reply(Cancelled("the caller went away; the work goes on")); }

void LateReactor::OnDone() {
  // The last reference may be this one.
  const auto keep = std::move(self_);
}

void RunLater(work::Pool& pool, work::Lane lane, const std::shared_ptr<LateReactor>& call,
              std::function<void()> body) {
  const trace::Scope scope(call->span());
  call->context().operation()->Queued(work::LaneName(lane));
  Status submitted = pool.Submit(
      lane, call->context(),
      [call, body = std::move(body)] {
        call->context().operation()->Runs();
        Status status = RunBody(
            [&body](const CallContext&) {
              body();
              return Status::Ok();
            },
            call->context());
        if (!status.ok()) call->Reply(status);
      },
      [call](const Status& why) { call->Reply(why); });
  if (!submitted.ok()) call->Reply(submitted);
}

}  // namespace internal

grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context, const Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

}  // namespace crisp::rpc
