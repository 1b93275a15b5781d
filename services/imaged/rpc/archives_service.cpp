#include "services/imaged/rpc/archives_service.h"

#include <condition_variable>
#include <mutex>

#include "libs/archive/source.h"
#include "libs/base/try.h"
#include "libs/rpc/status.h"
#include "libs/rpc/unary.h"

namespace crisp::imaged {
namespace {

constexpr std::size_t kChunk = std::size_t{256} << 10U;

/// One read or write under way, which the pool's thread waits for.
class Step {
 public:
  void Begin() {
    const std::lock_guard lock(mutex_);
    busy_ = true;
  }
  void Done(bool ok) {
    const std::lock_guard lock(mutex_);
    busy_ = false;
    ok_ = ok;
    changed_.notify_all();
  }
  /// gRPC always ends it, at the latest when the call is cancelled.
  bool Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !busy_; });
    return ok_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool busy_ = false;
  bool ok_ = false;
};

/// Runs `body` on the pool; it finishes the call, and until then the reactor lives.
template <typename Reactor>
void Run(work::Pool& pool, const CallContext& cc, Reactor* reactor) {
  const Status submitted = pool.Submit(
      work::Lane::kWait, cc, [reactor, cc] { reactor->Finish(rpc::ToGrpc(reactor->Body(cc))); },
      [reactor](const Status& why) { reactor->Finish(rpc::ToGrpc(why)); });
  if (!submitted.ok()) reactor->Finish(rpc::ToGrpc(submitted));
}

class ImportCall final : public grpc::ServerReadReactor<v1::ImportRequest>,
                         public archive::ChunkSource {
 public:
  ImportCall(Archives& archives, v1::ImportResponse* response)
      : archives_(archives), response_(response) {}

  void OnReadDone(bool ok) override { step_.Done(ok); }
  void OnCancel() override { left_.request_stop(); }
  void OnDone() override { delete this; }
  std::stop_token left() const { return left_.get_token(); }

  Result<std::string_view> Next() override {
    if (first_ && !message_.data().empty()) {
      first_ = false;
      return std::string_view(message_.data());
    }
    first_ = false;
    while (Read()) {
      if (!message_.data().empty()) return std::string_view(message_.data());
    }
    if (left_.stop_requested()) return Cancelled("the client left");
    return std::string_view();
  }

  Status Body(const CallContext& cc) {
    if (!Read()) return InvalidArgument("the archive is empty");
    const std::string name = message_.name();
    for (const ImportedImage& each : CRISP_TRY(archives_.Import(cc, *this, name))) {
      v1::ImportedImage& image = *response_->add_images();
      image.set_id(each.id);
      for (const std::string& one : each.names) image.add_names(one);
    }
    return Status::Ok();
  }

 private:
  bool Read() {
    if (ended_) return false;
    step_.Begin();
    StartRead(&message_);
    ended_ = !step_.Wait();
    return !ended_;
  }

  Archives& archives_;
  v1::ImportResponse* response_;
  std::stop_source left_;
  Step step_;
  v1::ImportRequest message_;
  bool first_ = true;  // the first message's data was not handed out yet
  bool ended_ = false;
};

class ExportCall final : public grpc::ServerWriteReactor<v1::ExportChunk> {
 public:
  ExportCall(Archives& archives, std::string image)
      : archives_(archives), image_(std::move(image)) {}

  void OnWriteDone(bool ok) override { step_.Done(ok); }
  void OnCancel() override { left_.request_stop(); }
  void OnDone() override { delete this; }
  std::stop_token left() const { return left_.get_token(); }

  Status Body(const CallContext& cc) {
    CRISP_TRY(archives_.Export(cc, image_, [this](std::string_view bytes) { return Add(bytes); }));
    return Flush();
  }

 private:
  Status Add(std::string_view bytes) {
    while (!bytes.empty()) {
      std::string& data = *chunk_.mutable_data();
      const std::size_t count = std::min(bytes.size(), kChunk - data.size());
      data.append(bytes.substr(0, count));
      bytes.remove_prefix(count);
      if (data.size() == kChunk) CRISP_TRY(Flush());
    }
    return Status::Ok();
  }
  Status Flush() {
    if (chunk_.data().empty()) return Status::Ok();
    step_.Begin();
    StartWrite(&chunk_);
    const bool written = step_.Wait();
    chunk_.clear_data();
    return written ? Status::Ok() : Cancelled("the client left");
  }

  Archives& archives_;
  const std::string image_;
  std::stop_source left_;
  Step step_;
  v1::ExportChunk chunk_;
};

}  // namespace

grpc::ServerReadReactor<v1::ImportRequest>* ArchivesService::Import(
    grpc::CallbackServerContext* context, v1::ImportResponse* response) {
  auto* call = new ImportCall(archives_, response);  // deletes itself in OnDone
  Run(pool_, rpc::ContextOf(*context, call->left()), call);
  return call;
}

grpc::ServerWriteReactor<v1::ExportChunk>* ArchivesService::Export(
    grpc::CallbackServerContext* context, const v1::ExportRequest* request) {
  auto* call = new ExportCall(archives_, request->image());  // deletes itself in OnDone
  Run(pool_, rpc::ContextOf(*context, call->left()), call);
  return call;
}

}  // namespace crisp::imaged
