#include "services/crid/rpc/observer.h"

#include <utility>
#include <vector>

#include "libs/base/try.h"
#include "libs/rpc/forward.h"
#include "libs/rpc/status.h"
#include "libs/rpc/unary.h"
#include "services/crid/core/list_pieces.h"

namespace crisp::crid {
namespace {

using work::Lane;

/// Writes messages that are ready, one after the other.
class Pieces final : public Observer::Stream {
 public:
  /// Once, on any thread.
  void Begin(const Result<std::vector<std::string>>& pieces) {
    if (!pieces.ok()) return Finish(rpc::ToGrpc(pieces.status()));
    for (const std::string& piece : *pieces) messages_.push_back(rpc::StringToBytes(piece));
    Next();
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the reader went away"));
    Next();
  }
  void OnDone() override { delete this; }

 private:
  void Next() {
    if (next_ == messages_.size()) return Finish(grpc::Status::OK);
    StartWrite(&messages_[next_++]);
  }

  std::vector<grpc::ByteBuffer> messages_;
  std::size_t next_ = 0;
};

}  // namespace

Observer::Stream* StreamInPieces(work::Pool& pool, grpc::CallbackServerContext* context,
                                 Observer::MakeList make) {
  auto* stream = new Pieces();  // deletes itself in OnDone, which comes after Begin
  const CallContext cc = rpc::ContextOf(*context);
  const Status submitted = pool.Submit(
      Lane::kWait, cc,
      [stream, cc, make = std::move(make)] {
        const Result<std::string> list = make(cc);
        stream->Begin(list.ok() ? CutList(*list) : Result<std::vector<std::string>>(list.status()));
      },
      [stream](const Status& why) { stream->Begin(why); });
  if (!submitted.ok()) stream->Begin(submitted);
  return stream;
}

namespace {

// Events that wait for a slow reader: the pods of a full node, several times over.
constexpr std::size_t kMaxEvents = 4096;

}  // namespace

Observer::Observer(std::shared_ptr<View> view, Peers& peers, work::Pool& pool)
    : view_(std::move(view)),
      peers_(peers),
      pool_(pool),
      readers_(kMaxEvents),
      events_(
          Clock::System(), [this] { return readers_.readers() > 0; },
          [this](const std::string& event) {
            readers_.Publish(std::make_shared<grpc::ByteBuffer>(rpc::StringToBytes(event)));
          }) {
  view_->SetEvents(&events_);
}

Observer::~Observer() { view_->SetEvents(nullptr); }

Observer::Unary* Observer::AskOne(Context* context, Raw* response, Kind kind, const std::string& id,
                                  std::function<Raw(const std::string& id)> request,
                                  const std::string& method) {
  if (auto found = view_->TryResolve(kind, id)) {
    if (!found->ok()) return rpc::Finish(context, found->status());
    const RecordPtr record = **found;
    const auto peer = peers_.RundPeer(record->instance);
    if (!peer) return rpc::Finish(context, Unavailable("rund/{} is away", record->instance));
    return rpc::Forward(context, request(record->id), response, *peer, method);
  }
  // Not known while a rund is away: waits for it on a thread.
  static const Raw kNone;
  return rpc::Unary(pool_, Lane::kWait, context, &kNone, response,
                    [this, kind, id, request = std::move(request), method](
                        const CallContext& cc, const Raw& /*r*/, Raw& out) -> Status {
                      const RecordPtr record = CRISP_TRY(view_->Resolve(cc, kind, id));
                      out = CRISP_TRY(peers_.CallRaw(cc, record->instance, method,
                                                     request(record->id), {.idempotent = true}));
                      return Status::Ok();
                    });
}

Observer::Unary* Observer::AskAny(Context* context, const Raw* request, Raw* response,
                                  const std::string& method) {
  for (const auto& instance : view_->Instances()) {
    if (!instance.fresh) continue;
    if (const auto peer = peers_.RundPeer(instance.name)) {
      return rpc::Forward(context, request, response, *peer, method);
    }
  }
  return rpc::Unary(
      pool_, Lane::kWait, context, request, response,
      [this, method](const CallContext& cc, const Raw& r, Raw& out) -> Status {
        CRISP_TRY(view_->WaitFresh(cc));
        for (const auto& instance : view_->Instances()) {
          if (!instance.fresh) continue;
          out = CRISP_TRY(peers_.CallRaw(cc, instance.name, method, r, {.idempotent = true}));
          return Status::Ok();
        }
        return Unavailable("rund is away");
      });
}

Observer::Unary* Observer::AskAll(Context* context, const Raw* request, Raw* response,
                                  const std::string& method) {
  const auto instances = view_->Instances();
  if (instances.size() == 1) {
    if (const auto peer = peers_.RundPeer(instances.front().name)) {
      return rpc::Forward(context, request, response, *peer, method);
    }
  }
  return rpc::Unary(pool_, Lane::kWait, context, request, response,
                    [this, method](const CallContext& cc, const Raw& r, Raw& out) -> Status {
                      out = rpc::StringToBytes(CRISP_TRY(AskAllNow(cc, method, r)));
                      return Status::Ok();
                    });
}

Result<std::string> Observer::AskAllNow(const CallContext& cc, const std::string& method,
                                        const Raw& request) {
  CRISP_TRY(view_->WaitFresh(cc));
  std::string all;
  for (const auto& instance : view_->Instances()) {
    if (!instance.fresh) continue;  // away: its statistics are not to be had
    all += rpc::BytesToString(
        CRISP_TRY(peers_.CallRaw(cc, instance.name, method, request, {.idempotent = true})));
  }
  return all;
}

Result<std::string> Observer::FreshList(
    const CallContext& cc,
    const std::function<std::shared_ptr<const std::string>(const View&)>& list) const {
  const CallContext within = cc.Within(view_->peer_wait());
  for (;;) {
    if (const auto items = list(*view_)) return *items;
    CRISP_TRY(view_->WaitFresh(within));
  }
}

Observer::Stream* Observer::StreamAll(Context* context, const Raw* request,
                                      const std::string& method) {
  return StreamInPieces(pool_, context, [this, method, asked = *request](const CallContext& cc) {
    return AskAllNow(cc, method, asked);
  });
}

Observer::Stream* Observer::StreamPods(Context* context, const Raw* request) {
  return StreamInPieces(
      pool_, context, [this, asked = *request](const CallContext& cc) -> Result<std::string> {
        runtime::v1::StreamPodSandboxesRequest message;
        CRISP_TRY(rpc::ParseBytes(asked, message));
        return FreshList(cc, [&](const View& view) { return view.Pods(message.filter()); });
      });
}

Observer::Stream* Observer::StreamContainers(Context* context, const Raw* request) {
  return StreamInPieces(
      pool_, context, [this, asked = *request](const CallContext& cc) -> Result<std::string> {
        runtime::v1::StreamContainersRequest message;
        CRISP_TRY(rpc::ParseBytes(asked, message));
        return FreshList(cc, [&](const View& view) { return view.Containers(message.filter()); });
      });
}

}  // namespace crisp::crid
