#include "libs/rpc/forward.h"

#include <grpcpp/alarm.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "libs/rpc/internal.h"
#include "libs/rpc/metadata.h"
#include "libs/rpc/tracing.h"
#include "libs/rpc/unary.h"

namespace crisp::rpc {
namespace {

/// One forwarded call. It is the reactor of the incoming side, so it lives until gRPC's OnDone;
/// timers and the outgoing side's callback hold it too.
class Relay final : public grpc::ServerUnaryReactor, public std::enable_shared_from_this<Relay> {
 public:
  Relay(grpc::CallbackServerContext* incoming, const grpc::ByteBuffer& request,
        grpc::ByteBuffer* response, Peer peer, std::string method, ForwardOptions options)
      : cc_(Tracked(ContextOf(*incoming), options, method)),
        incoming_(incoming),
        request_(request),
        response_(response),
        peer_(std::move(peer)),
        stub_(peer_.channel()),
        method_(std::move(method)),
        options_(std::move(options)),
        patience_(std::chrono::steady_clock::now() + peer_.wait()) {}

  void Start() {
    self_ = shared_from_this();
    // gRPC calls us also for a call that was cancelled between its headers and its message, which
    // is none then, and ends the process over one that is sent on.
    if (!request_.Valid()) return Reply(Cancelled("the caller went away"));
    Attempt();
  }

  void OnCancel() override {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (outgoing_) outgoing_->TryCancel();
  }
  void OnDone() override {
    // The last reference may be this one.
    const auto keep = std::move(self_);
  }

 private:
  static CallContext Tracked(const CallContext& cc, const ForwardOptions& options,
                             const std::string& method) {
    if (options.operations == nullptr) return cc;
    return options.operations->Track(
        cc, {.kind = method.substr(method.rfind('/') + 1), .subjects = options.subjects});
  }

  void Attempt() {
    if (!peer_.Ready()) return Wait();
    away_ = false;
    stage_.reset();
    stage_.emplace(work::Stage::Elsewhere(
        cc_, fmt::format("wait for the answer of {}", peer_.name()), peer_.name()));
    {
      std::lock_guard lock(mutex_);
      if (cancelled_) return Reply(Cancelled("the caller went away"));
      outgoing_.emplace();
      if (cc_.deadline() != SteadyTime::max()) {
        outgoing_->set_deadline(
            std::chrono::system_clock::now() +
            std::chrono::duration_cast<std::chrono::microseconds>(cc_.Remaining()));
      }
      outgoing_->AddMetadata(kRequestIdKey, cc_.request_id());
      SendTrace(*outgoing_, TraceOf(*incoming_));
    }
    stub_.UnaryCall(
        &*outgoing_, method_, grpc::StubOptions(), &request_, response_,
        [self = shared_from_this()](const grpc::Status& answer) { self->OnAnswer(answer); });
  }

  void OnAnswer(const grpc::Status& answer) {
    const bool broke = internal::ConnectionBroke(answer, *outgoing_);
    {
      std::lock_guard lock(mutex_);
      outgoing_.reset();
    }
    Status status = FromGrpc(answer);
    if (broke) {
      const auto now = std::chrono::steady_clock::now();
      if (!std::exchange(broke_before_, true)) patience_ = now + peer_.wait();
      if (options_.idempotent && now < patience_) return Wait();
      status = std::move(status).While("{} is away", peer_.name());
    }
    Reply(status);
  }

  /// For the peer to come (back): looks again in a moment.
  void Wait() {
    bool cancelled = false;
    {
      std::lock_guard lock(mutex_);
      cancelled = cancelled_;
    }
    if (cancelled) return Reply(Cancelled("the caller went away"));
    const auto now = std::chrono::steady_clock::now();
    if (now >= cc_.deadline()) return Reply(DeadlineExceeded("waiting for {}", peer_.name()));
    if (now >= patience_ || peer_.given_up()) return Reply(internal::Away(peer_));
    if (!std::exchange(away_, true)) {
      stage_.reset();
      stage_.emplace(work::Stage::Elsewhere(
          cc_, fmt::format("wait for {}, which is away", peer_.name()), peer_.name()));
    }
    peer_.Poke();
    alarm_ = std::make_unique<grpc::Alarm>();
    // The alarm keeps its callback, and we keep the alarm: the callback lets go of us.
    alarm_->Set(std::chrono::system_clock::now() + internal::kPokeEvery,
                [self = shared_from_this()](bool /*fired*/) mutable {
                  const auto keep = std::move(self);
                  keep->Attempt();
                });
  }

  void Reply(const Status& status) {
    const auto& operation = cc_.operation();
    Finish(ToGrpc(operation == nullptr ? status : operation->Answer(status)));
  }

  std::shared_ptr<Relay> self_;
  const CallContext cc_;
  grpc::CallbackServerContext* const incoming_;
  const grpc::ByteBuffer request_;
  grpc::ByteBuffer* const response_;
  const Peer peer_;
  grpc::GenericStub stub_;
  const std::string method_;
  const ForwardOptions options_;
  SteadyTime patience_;
  bool broke_before_ = false;
  bool away_ = false;
  std::optional<work::Stage> stage_;
  std::unique_ptr<grpc::Alarm> alarm_;

  std::mutex mutex_;  // of what OnCancel touches while the call is under way
  std::optional<grpc::ClientContext> outgoing_;
  bool cancelled_ = false;
};

}  // namespace

grpc::ServerUnaryReactor* Forward(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer& request, grpc::ByteBuffer* response,
                                  const Peer& peer, const std::string& method,
                                  ForwardOptions options) {
  auto relay =
      std::make_shared<Relay>(context, request, response, peer, method, std::move(options));
  relay->Start();
  return relay.get();
}

grpc::ServerUnaryReactor* Forward(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer* request, grpc::ByteBuffer* response,
                                  const Peer& peer, const std::string& method,
                                  ForwardOptions options) {
  return Forward(context, *request, response, peer, method, std::move(options));
}

std::string BytesToString(const grpc::ByteBuffer& bytes) {
  std::vector<grpc::Slice> slices;
  std::string text;
  if (!bytes.Dump(&slices).ok()) return text;
  text.reserve(bytes.Length());
  for (const grpc::Slice& slice : slices) {
    // A slice is bytes; so is a string.
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return text;
}

grpc::ByteBuffer StringToBytes(std::string_view text) {
  const grpc::Slice slice(text.data(), text.size());
  return {&slice, 1};
}

}  // namespace crisp::rpc
