#include "services/imaged/rpc/pulls_service.h"

#include <memory>
#include <mutex>

#include "libs/base/try.h"
#include "libs/rpc/status.h"
#include "libs/rpc/unary.h"

namespace crisp::imaged {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(100);

v1::LayerProgress::State StateOf(LayerProgress::State state) {
  switch (state) {
    case LayerProgress::State::kWaiting: return v1::LayerProgress::WAITING;
    case LayerProgress::State::kDownloading: return v1::LayerProgress::DOWNLOADING;
    case LayerProgress::State::kUnpacked: return v1::LayerProgress::UNPACKED;
    case LayerProgress::State::kPresent: return v1::LayerProgress::PRESENT;
  }
  return v1::LayerProgress::WAITING;
}

v1::PullEvent EventOf(const PullProgress& progress) {
  v1::PullEvent event;
  event.set_stage(progress.stage());
  for (const PullProgress::Layer& layer : progress.layers()) {
    v1::LayerProgress& each = *event.add_layers();
    each.set_digest(layer.digest);
    each.set_size(static_cast<std::int64_t>(layer.size));
    each.set_done(static_cast<std::int64_t>(layer.done));
    each.set_state(StateOf(layer.state));
  }
  return event;
}

/// One caller that watches a pull. A pool thread waits for the pull, a timer writes how far it is;
/// what they share outlives both, and gRPC's part ends in OnDone.
class Stream final : public grpc::ServerWriteReactor<v1::PullEvent> {
 public:
  Stream() : shared_(std::make_shared<Shared>()) { shared_->stream = this; }

  static void Start(Stream* stream, work::Pool& pool, loop::Loop& loop, Puller& puller,
                    const CallContext& context, const runtime::v1::PullImageRequest& request) {
    const std::shared_ptr<Shared> shared = stream->shared_;
    const CallContext cc = pool.operations().Track(context.WithStop(shared->left.get_token()),
                                                   rpc::AboutCall(request));
    const Status submitted = pool.Submit(
        work::Lane::kWait, cc,
        [shared, &loop, &puller, cc, request] {
          const Result<std::string> id = Follow(shared, loop, puller, cc, request);
          shared->End(cc.operation()->Answer(id.status()), id.ok() ? *id : "");
        },
        [shared](const Status& why) { shared->End(why, ""); });
    if (!submitted.ok()) shared->End(submitted, "");
  }

  void OnWriteDone(bool ok) override { shared_->Written(ok); }
  void OnCancel() override { shared_->left.request_stop(); }
  void OnDone() override {
    shared_->Gone();
    delete this;
  }

 private:
  struct Shared {
    std::mutex mutex;
    Stream* stream = nullptr;  // until OnDone
    std::shared_ptr<PullProgress> progress;
    std::stop_source left;
    v1::PullEvent writing;
    bool busy = false;
    bool ended = false;
    bool finished = false;
    bool last_written = false;
    Status outcome;
    std::string image_ref;
    std::string shown;  // the last event's bytes: the same is not told twice

    void Tick() {
      const std::lock_guard lock(mutex);
      if (stream == nullptr || busy || ended || !progress) return;
      v1::PullEvent event = EventOf(*progress);
      std::string bytes = event.SerializeAsString();
      if (bytes == shown) return;
      shown = std::move(bytes);
      Write(std::move(event));
    }
    void End(const Status& status, const std::string& ref) {
      const std::lock_guard lock(mutex);
      ended = true;
      outcome = status;
      image_ref = ref;
      if (!busy) Conclude();
    }
    void Written(bool ok) {
      const std::lock_guard lock(mutex);
      busy = false;
      if (!ok) last_written = true;
      if (ended) Conclude();
    }
    void Gone() {
      const std::lock_guard lock(mutex);
      stream = nullptr;
      left.request_stop();
    }
    void Write(v1::PullEvent event) {
      writing = std::move(event);
      busy = true;
      stream->StartWrite(&writing);
    }
    /// The last event of a success, then the status.
    void Conclude() {
      if (stream == nullptr || finished) return;
      if (outcome.ok() && !last_written) {
        last_written = true;
        v1::PullEvent event = progress ? EventOf(*progress) : v1::PullEvent();
        event.set_stage("done");
        event.set_image_ref(image_ref);
        Write(std::move(event));
        return;
      }
      finished = true;
      stream->Finish(rpc::ToGrpc(outcome));
    }
  };

  static Result<std::string> Follow(const std::shared_ptr<Shared>& shared, loop::Loop& loop,
                                    Puller& puller, const CallContext& cc,
                                    const runtime::v1::PullImageRequest& request) {
    const Credentials credentials = CRISP_TRY(Puller::Credentials(request));
    auto progress = CRISP_TRY(puller.Watch(request.image().image(), credentials));
    {
      const std::lock_guard lock(shared->mutex);
      shared->progress = std::move(progress);
    }
    const loop::Timer timer = loop.Every(kInterval, [shared] { shared->Tick(); });
    return puller.Pull(cc, request.image().image(), credentials);
  }

  std::shared_ptr<Shared> shared_;
};

}  // namespace

grpc::ServerWriteReactor<v1::PullEvent>* PullsService::Pull(
    grpc::CallbackServerContext* context, const runtime::v1::PullImageRequest* request) {
  auto* stream = new Stream();  // deletes itself in OnDone
  Stream::Start(stream, pool_, loop_, puller_, rpc::ContextOf(*context), *request);
  return stream;
}

}  // namespace crisp::imaged
