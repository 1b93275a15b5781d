#include "services/imaged/core/layer_pull.h"

#include <thread>

#include "libs/archive/decompress.h"
#include "libs/archive/tar.h"
#include "libs/base/try.h"
#include "services/imaged/registry/client.h"

namespace crisp::imaged {
namespace {

constexpr std::size_t kCompressedQueue = 12;  // buffers: 3 MB
constexpr std::size_t kPlainQueue = 16;
constexpr int kMaxBreaks = 5;  // broken connections in a row with hardly a byte between them
// What a connection must bring so that the next break is the first again: a peer that drips is not
// waited for to the end.
constexpr std::uint64_t kProgress = std::uint64_t{64} << 10U;
// After a damaged stream: so much is still read to tell whether the blob itself is the wrong one.
constexpr std::uint64_t kMaxVerify = std::uint64_t{1} << 30U;
// What a tar may have beyond its files' contents before we call it a bomb.
constexpr std::uint64_t kMaxOverhead = std::uint64_t{1} << 30U;

/// True for failures that a wrong blob explains: then its digest is the better message.
bool BlamesContent(const Status& status) {
  return status.code() == Code::kDataLoss || status.code() == Code::kInvalidArgument ||
         status.code() == Code::kUnimplemented;
}

/// The stages of one layer's pull and what goes between them. Each stage's status is written by its
/// thread and read after the join.
class Pipeline {
 public:
  Pipeline(const CallContext& cc, const Descriptor& blob, const OpenBlob& open, BufferPool& pool,
           Bytes max_size, LayerProgress& progress)
      : cc_(cc.deadline(), stop_.get_token(), cc.request_id()),
        outer_stop_(cc.stop(), [this] { stop_.request_stop(); }),
        blob_(blob),
        open_(open),
        pool_(pool),
        max_plain_(max_size.count() + kMaxOverhead),
        progress_(progress) {}

  Status Run(const digest::Digest& diff_id, Unpacker& unpacker);

 private:
  void Fetch();
  Status FetchAll(digest::Sha256& sum);
  Status FetchFrom(BlobReader& blob, digest::Sha256& sum);
  void Inflate();
  Status InflateAll();
  void Hash();
  Status HashAll();

  std::stop_source stop_;
  const CallContext cc_;
  std::stop_callback<std::function<void()>> outer_stop_;
  const Descriptor& blob_;
  const OpenBlob& open_;
  BufferPool& pool_;
  const std::uint64_t max_plain_;
  LayerProgress& progress_;

  BufferQueue compressed_{kCompressedQueue};
  BufferQueue plain_{kPlainQueue};
  BufferQueue hashed_{kPlainQueue};
  std::uint64_t offset_ = 0;  // bytes of the blob taken in
  Buffer filling_;
  std::atomic<bool> discard_ = false;  // nobody wants the bytes any more, only their digest counts
  Status fetched_;
  Status inflated_;
  Status hashing_;
  std::string diff_hex_;
};

Status Pipeline::FetchFrom(BlobReader& blob, digest::Sha256& sum) {
  while (offset_ < blob_.size) {
    if (!filling_.bytes) filling_ = pool_.Take();
    const std::span<char> room(filling_.bytes.get() + filling_.size, kBufferSize - filling_.size);
    const std::uint64_t left = blob_.size - offset_;
    const std::size_t count = CRISP_TRY(blob.Read(
        cc_, room.first(static_cast<std::size_t>(std::min<std::uint64_t>(room.size(), left)))));
    if (count == 0) return Unavailable("the blob {} ends early", blob_.digest.str());
    sum.Update(std::string_view(room.data(), count));
    filling_.size += count;
    offset_ += count;
    progress_.done.store(offset_, std::memory_order_relaxed);
    if (filling_.size < kBufferSize && offset_ < blob_.size) continue;
    if (discard_) {
      filling_.size = 0;
      if (offset_ > kMaxVerify) return Aborted("the rest of {} is not wanted", blob_.digest.str());
    } else if (!compressed_.Push(std::exchange(filling_, Buffer()))) {
      discard_ = true;
    }
  }
  return Status::Ok();
}

Status Pipeline::FetchAll(digest::Sha256& sum) {
  int breaks = 0;
  do {
    const std::uint64_t before = offset_;
    const std::unique_ptr<BlobReader> reader = CRISP_TRY(open_(cc_, offset_));
    const std::uint64_t total = reader->total().value_or(blob_.size);
    if (total > blob_.size)
      return DataLoss("the blob {} has {} bytes, its manifest says {}", blob_.digest.str(), total,
                      blob_.size);
    const Status status = FetchFrom(*reader, sum);
    if (status.ok() || status.code() != Code::kUnavailable) return status;
    breaks = offset_ - before >= kProgress ? 1 : breaks + 1;
    if (breaks > kMaxBreaks)
      return DataLoss("the blob {} ends after {} of {} bytes ({})", blob_.digest.str(), offset_,
                      blob_.size, status.message());
    CRISP_TRY(Pause(cc_, std::chrono::milliseconds(100) * breaks));
  } while (offset_ < blob_.size);
  return Status::Ok();
}

void Pipeline::Fetch() {
  digest::Sha256 sum;
  fetched_ = FetchAll(sum);
  if (fetched_.ok()) {
    const digest::Digest found = sum.Finish();
    if (found != blob_.digest)
      fetched_ = DataLoss("the blob {} has the digest {}", blob_.digest.str(), found.str());
  }
  if (fetched_.ok()) {
    compressed_.Close();
  } else {
    compressed_.Abort(fetched_);
  }
  pool_.Give(std::move(filling_));
}

Status Pipeline::InflateAll() {
  QueueSource source(compressed_, pool_);
  const std::string_view head = CRISP_TRY(source.Peek());
  const archive::Compression kind = CRISP_TRY(archive::DetectCompression(head));
  const auto reader = archive::MakeDecompressor(kind, source);
  std::uint64_t total = 0;
  while (true) {
    Buffer buffer = pool_.Take();
    buffer.size = CRISP_TRY(reader->Read({buffer.bytes.get(), kBufferSize}));
    total += buffer.size;
    if (total > max_plain_)
      return ResourceExhausted("the layer unpacks to more than {} bytes", max_plain_);
    const bool last = buffer.size < kBufferSize;
    if (buffer.size == 0) {
      pool_.Give(std::move(buffer));
    } else if (!plain_.Push(std::move(buffer))) {
      return Aborted("the layer is not unpacked any more");
    }
    if (last) return Status::Ok();
  }
}

void Pipeline::Inflate() {
  inflated_ = InflateAll();
  if (inflated_.ok()) {
    plain_.Close();
  } else {
    plain_.Abort(inflated_);
    compressed_.Abort(inflated_);
  }
}

Status Pipeline::HashAll() {
  digest::Sha256 sum;
  while (true) {
    std::optional<Buffer> buffer = CRISP_TRY(plain_.Pop());
    if (!buffer) break;
    sum.Update(buffer->view());
    if (!hashed_.Push(std::move(*buffer))) return Aborted("the layer is not unpacked any more");
  }
  diff_hex_ = sum.Hex();
  return Status::Ok();
}

void Pipeline::Hash() {
  hashing_ = HashAll();
  if (hashing_.ok()) {
    hashed_.Close();
  } else {
    hashed_.Abort(hashing_);
    plain_.Abort(hashing_);
  }
}

Status Pipeline::Run(const digest::Digest& diff_id, Unpacker& unpacker) {
  std::thread fetch([this] { Fetch(); });
  std::thread inflate([this] { Inflate(); });
  std::thread hash([this] { Hash(); });
  Status unpacked;
  {
    QueueSource source(hashed_, pool_);
    archive::TarReader tar(source);
    unpacked = unpacker.Unpack(tar);
    // A full disk and the like: the rest of the blob tells nothing more.
    if (!unpacked.ok() && !BlamesContent(unpacked)) stop_.request_stop();
    if (!unpacked.ok()) hashed_.Abort(unpacked);
  }
  hash.join();
  inflate.join();
  fetch.join();

  // Aborts hand the first cause downstream, so `unpacked` has it; except that a wrong blob explains
  // whatever became of its contents.
  const std::string& name = blob_.digest.str();
  if (fetched_.code() == Code::kDataLoss) return fetched_;
  if (!unpacked.ok()) return std::move(unpacked).While("layer {}", name);
  if (diff_hex_ != diff_id.hex())
    return DataLoss("layer {} unpacks to the diff id sha256:{}, the image's config says {}", name,
                    diff_hex_, diff_id.str());
  return Status::Ok();
}

}  // namespace

Status PullLayer(const CallContext& cc, const Descriptor& blob, const digest::Digest& diff_id,
                 const OpenBlob& open, Unpacker& unpacker, BufferPool& pool, Bytes max_size,
                 LayerProgress& progress) {
  progress.state = LayerProgress::State::kDownloading;
  Pipeline pipeline(cc, blob, open, pool, max_size, progress);
  CRISP_TRY(pipeline.Run(diff_id, unpacker));
  progress.state = LayerProgress::State::kUnpacked;
  return Status::Ok();
}

}  // namespace crisp::imaged
