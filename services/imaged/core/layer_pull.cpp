#include "services/imaged/core/layer_pull.h"

#include <thread>

#include "libs/archive/decompress.h"
#include "libs/archive/tar.h"
#include "libs/archive/tar_writer.h"
#include "libs/base/try.h"
#include "libs/work/pause.h"
#include "services/imaged/core/gather.h"
#include "services/imaged/core/rebuild.h"
#include "services/imaged/core/reuse.h"
#include "services/imaged/registry/retry.h"

namespace crisp::imaged {
namespace {

constexpr std::size_t kCompressedQueue = 6;  // buffers: 1.5 MiB
constexpr std::size_t kPlainQueue = 6;
constexpr std::size_t kHashedQueue = 4;
constexpr int kMaxBreaks = 5;  // broken connections in a row with hardly a byte between them
// What a connection must bring so that the next break is the first again: a peer that drips is not
// waited for to the end.
constexpr std::uint64_t kProgress = std::uint64_t{64} << 10U;
// After a damaged stream: so much is still read to tell whether the blob itself is the wrong one.
constexpr std::uint64_t kMaxVerify = std::uint64_t{1} << 30U;
// What a tar may have beyond its files' contents before we call it a bomb.
constexpr std::uint64_t kMaxOverhead = std::uint64_t{1} << 30U;

constexpr unsigned kFileMode = 0644;  // of an artifact's file

/// True for failures that a wrong blob explains: then its digest is the better message.
bool BlamesContent(const Status& status) {
  return status.code() == Code::kDataLoss || status.code() == Code::kInvalidArgument ||
         status.code() == Code::kUnimplemented;
}

/// Nobody answers, or only with errors of the moment (ImageSource::OpenBlob).
bool IsOutage(Code code) { return code == Code::kUnknown || code == Code::kUnavailable; }

/// The stages of one layer's pull and what goes between them. Each stage's status is written by its
/// thread and read after the join.
class Pipeline {
 public:
  Pipeline(const CallContext& cc, const WantedLayer& layer, const LayerLimits& limits,
           LayerProgress& progress)
      : cc_(cc.WithStop(stop_.get_token())),
        outer_stop_(cc.stop(), [this] { stop_.request_stop(); }),
        blob_(layer.blob),
        reuse_(layer.reuse),
        open_(reuse_ != nullptr ? Gather(reuse_->parts, blob_.size, layer.open) : layer.open),
        size_(reuse_ != nullptr ? reuse_->fetch_size : blob_.size),
        limits_(limits),
        pool_(limits.buffers),
        max_plain_(limits.max_size.count() + kMaxOverhead),
        progress_(progress) {}

  Status Run(const digest::Digest& diff_id, Unpacker& unpacker);
  /// After Run.
  LayerNews News();

 private:
  using Time = std::chrono::nanoseconds;

  void Fetch();
  Status FetchAll(digest::Sha256& sum);
  Result<std::unique_ptr<BlobReader>> OpenRest();
  Status FetchFrom(BlobReader& blob, digest::Sha256& sum);
  Result<std::unique_ptr<BlobReader>> FetchRanges(digest::Sha256& sum);
  void Took(std::string_view bytes, digest::Sha256& sum);
  void KeepToc(std::string_view bytes);
  Status HandOn(Buffer buffer);
  void Inflate();
  Status InflateAll();
  Status WrapAll();
  Status PassOn(std::string_view text);
  void Hash();
  Status HashAll();

  std::stop_source stop_;
  const CallContext cc_;
  std::stop_callback<std::function<void()>> outer_stop_;
  const Descriptor& blob_;
  const ReusePlan* const reuse_;
  const OpenBlob open_;
  const std::uint64_t size_;  // of what is fetched: of the blob, or of the plan's parts of it
  const LayerLimits& limits_;
  BufferPool& pool_;
  const std::uint64_t max_plain_;
  LayerProgress& progress_;

  BufferQueue compressed_{kCompressedQueue};
  BufferQueue plain_{kPlainQueue};
  BufferQueue hashed_{kHashedQueue};
  std::uint64_t offset_ = 0;  // bytes of the blob taken in
  Buffer filling_;
  std::string toc_;
  std::atomic<bool> discard_ = false;  // nobody wants the bytes any more, only their digest counts
  Status fetched_;
  Status inflated_;
  Status hashing_;
  std::string diff_hex_;
  Time fetch_took_{0};
  Time inflate_took_{0};
  Time hash_took_{0};
  Time unpack_took_{0};
};

/// Adds the time of its life to `took`.
class Stopwatch {
 public:
  explicit Stopwatch(std::chrono::nanoseconds& took) : took_(took) {}
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  ~Stopwatch() { took_ += std::chrono::steady_clock::now() - start_; }

 private:
  std::chrono::nanoseconds& took_;
  const SteadyTime start_ = std::chrono::steady_clock::now();
};

/// What of the blob's next bytes is its table of files.
void Pipeline::KeepToc(std::string_view bytes) {
  const BlobRange& toc = blob_.chunked->toc;
  const std::uint64_t from = std::max(offset_, toc.from);
  const std::uint64_t end = std::min(offset_ + bytes.size(), toc.from + toc.size);
  if (from < end) toc_ += bytes.substr(from - offset_, end - from);
}

void Pipeline::Took(std::string_view bytes, digest::Sha256& sum) {
  if (reuse_ == nullptr) {
    sum.Update(bytes);
    if (blob_.chunked) KeepToc(bytes);
  }
  offset_ += bytes.size();
  progress_.done.store(offset_, std::memory_order_relaxed);
  progress_.last = std::chrono::steady_clock::now();
  limits_.on_fetched(bytes.size());
}

Status Pipeline::HandOn(Buffer buffer) {
  if (!discard_) {
    if (compressed_.Push(std::move(buffer))) return Status::Ok();
    discard_ = true;
  } else {
    pool_.Give(std::move(buffer));
  }
  if (offset_ > kMaxVerify) return Aborted("the rest of {} is not wanted", blob_.digest.str());
  return Status::Ok();
}

Status Pipeline::FetchFrom(BlobReader& blob, digest::Sha256& sum) {
  while (offset_ < size_) {
    if (!filling_.bytes) filling_ = pool_.Take();
    const std::span<char> room(filling_.bytes.get() + filling_.size, kBufferSize - filling_.size);
    const std::uint64_t left = size_ - offset_;
    const std::size_t count = CRISP_TRY(blob.Read(
        cc_, room.first(static_cast<std::size_t>(std::min<std::uint64_t>(room.size(), left)))));
    if (count == 0) return Unavailable("the blob {} ends early", blob_.digest.str());
    filling_.size += count;
    Took({room.data(), count}, sum);
    if (filling_.size < kBufferSize && offset_ < size_) continue;
    CRISP_TRY(HandOn(std::exchange(filling_, Buffer())));
  }
  return Status::Ok();
}

/// As much as comes in ranges, which may be nothing or all. Of a source that has none it answers
/// the stream of the whole blob.
Result<std::unique_ptr<BlobReader>> Pipeline::FetchRanges(digest::Sha256& sum) {
  Result<std::unique_ptr<BlobReader>> first = open_(cc_, limits_.spread.FirstRange(size_));
  // Somebody may dislike ranges, and be had without.
  if (IsOutage(first.code())) return std::unique_ptr<BlobReader>();
  if (!first.ok() || !(*first)->is_range()) return first;
  if ((*first)->total() != size_) return std::unique_ptr<BlobReader>();
  *progress_.from.lock() = (*first)->from();
  RangedFetch ranges(cc_, size_, *std::move(first), open_, limits_.spread, limits_.connections,
                     pool_);
  while (std::optional<Buffer> buffer = ranges.Next()) {
    Took(buffer->view(), sum);
    CRISP_TRY(HandOn(*std::move(buffer)));
  }
  return std::unique_ptr<BlobReader>();
}

/// The blob from here on, from a source that may be away for a while.
Result<std::unique_ptr<BlobReader>> Pipeline::OpenRest() {
  const SteadyTime since = std::chrono::steady_clock::now();
  for (int tries = 0;; ++tries) {
    Result<std::unique_ptr<BlobReader>> reader = open_(cc_, {.from = offset_});
    if (reader.ok() || !IsOutage(reader.code()) ||
        std::chrono::steady_clock::now() - since >= limits_.outage)
      return reader;
    CRISP_TRY(work::Pause(cc_, BackOff(tries)));
  }
}

Status Pipeline::FetchAll(digest::Sha256& sum) {
  const Slots::Hold connection =
      CRISP_TRY(limits_.connections.Take(cc_, "wait for a connection among the downloads"));
  progress_.began = std::chrono::steady_clock::now();
  progress_.state = LayerProgress::State::kDownloading;
  std::unique_ptr<BlobReader> reader;
  if (limits_.spread.most > 1 && size_ >= limits_.ranged_from.count())
    reader = CRISP_TRY(FetchRanges(sum));
  int breaks = 0;
  while (offset_ < size_) {
    const std::uint64_t before = offset_;
    if (!reader) reader = CRISP_TRY(OpenRest());
    *progress_.from.lock() = reader->from();
    const std::uint64_t total = reader->total().value_or(size_);
    if (total > size_)
      return DataLoss("the blob {} has {} bytes, its manifest says {}", blob_.digest.str(), total,
                      size_);
    const Status status = FetchFrom(*reader, sum);
    if (status.ok() || status.code() != Code::kUnavailable) return status;
    reader.reset();
    breaks = offset_ - before >= kProgress ? 1 : breaks + 1;
    if (breaks > kMaxBreaks)
      return DataLoss("the blob {} ends after {} of {} bytes ({})", blob_.digest.str(), offset_,
                      size_, status.message());
    CRISP_TRY(work::Pause(cc_, std::chrono::milliseconds(100) * breaks));
  }
  return Status::Ok();
}

void Pipeline::Fetch() {
  const Stopwatch watch(fetch_took_);
  digest::Sha256 sum;
  fetched_ = FetchAll(sum);
  if (fetched_.ok() && reuse_ == nullptr) {
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
  std::unique_ptr<archive::Decompressor> reader;
  const TarRebuild* rebuild = nullptr;
  if (reuse_ != nullptr) {
    auto made = std::make_unique<TarRebuild>(*reuse_, source);
    rebuild = made.get();
    reader = std::move(made);
  } else {
    const std::string_view head = CRISP_TRY(source.Peek());
    const archive::Compression kind = CRISP_TRY(archive::DetectCompression(head));
    reader = archive::MakeDecompressor(kind, source);
  }
  std::uint64_t total = 0;
  while (true) {
    Buffer buffer = pool_.Take();
    buffer.size = CRISP_TRY(reader->Read({buffer.bytes.get(), kBufferSize}));
    total += buffer.size;
    if (total > max_plain_)
      return ResourceExhausted("the layer unpacks to more than {} bytes", max_plain_);
    // By what has come: the manifest may claim any size. A file of the store is no expansion, but
    // the second one with its contents is.
    const std::uint64_t reused = rebuild != nullptr ? rebuild->reused() : 0;
    CRISP_TRY(limits_.expansion.Check(progress_.done, total - std::min(total, reused)));
    const bool last = buffer.size < kBufferSize;
    if (buffer.size == 0) {
      pool_.Give(std::move(buffer));
    } else if (!plain_.Push(std::move(buffer))) {
      return Aborted("the layer is not unpacked any more");
    }
    if (last) return Status::Ok();
  }
}

Status Pipeline::PassOn(std::string_view text) {
  while (!text.empty()) {
    Buffer buffer = pool_.Take();
    buffer.size = text.copy(buffer.bytes.get(), kBufferSize);
    text.remove_prefix(buffer.size);
    if (!plain_.Push(std::move(buffer))) return Aborted("the layer is not unpacked any more");
  }
  return Status::Ok();
}

/// The tar of one file around the blob.
Status Pipeline::WrapAll() {
  const std::string header =
      CRISP_TRY(archive::TarHeader({.path = blob_.file, .mode = kFileMode, .size = blob_.size}));
  CRISP_TRY(PassOn(header));
  while (std::optional<Buffer> buffer = CRISP_TRY(compressed_.Pop()))
    if (!plain_.Push(*std::move(buffer))) return Aborted("the file is not written any more");
  return PassOn(std::string(archive::TarPadding(blob_.size)) + archive::TarEnd());
}

void Pipeline::Inflate() {
  const Stopwatch watch(inflate_took_);
  inflated_ = blob_.file.empty() ? InflateAll() : WrapAll();
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
    if (blob_.file.empty()) sum.Update(buffer->view());
    if (!hashed_.Push(std::move(*buffer))) return Aborted("the layer is not unpacked any more");
  }
  diff_hex_ = sum.Hex();
  return Status::Ok();
}

void Pipeline::Hash() {
  const Stopwatch watch(hash_took_);
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
    const Stopwatch watch(unpack_took_);
    QueueSource source(hashed_, pool_);
    archive::TarReader tar(source);
    unpacked = unpacker.Unpack(tar);
    // A full disk and the like, or parts only: the rest of the blob tells nothing more.
    if (!unpacked.ok() && (reuse_ != nullptr || !BlamesContent(unpacked))) stop_.request_stop();
    if (!unpacked.ok()) hashed_.Abort(unpacked);
  }
  hash.join();
  inflate.join();
  fetch.join();

  // Aborts hand the first cause downstream, so `unpacked` has it; except that a wrong blob explains
  // whatever became of its contents.
  const std::string& name = blob_.digest.str();
  if (fetched_.code() == Code::kDataLoss) return fetched_;
  // "RegistryUnavailable" stays its first word.
  if (fetched_.code() == Code::kUnknown && unpacked.code() == Code::kUnknown) return fetched_;
  if (!unpacked.ok()) return std::move(unpacked).While("layer {}", name);
  if (blob_.file.empty() && diff_hex_ != diff_id.hex())
    return DataLoss("layer {} unpacks to the diff id sha256:{}, the image's config says {}", name,
                    diff_hex_, diff_id.str());
  return Status::Ok();
}

LayerNews Pipeline::News() {
  return {
      .times =
          {
              .download = fetch_took_ - compressed_.writer_waited(),
              .inflate = inflate_took_ - compressed_.reader_waited() - plain_.writer_waited(),
              .digest = hash_took_ - plain_.reader_waited() - hashed_.writer_waited(),
              .unpack = unpack_took_ - hashed_.reader_waited(),
          },
      .toc = std::move(toc_),
  };
}

}  // namespace

Status PullLayer(const CallContext& cc, const WantedLayer& layer, Unpacker& unpacker,
                 const LayerLimits& limits, LayerProgress& progress, LayerNews& news) {
  progress.done = 0;
  progress.spared = layer.reuse != nullptr ? layer.blob.size - layer.reuse->fetch_size : 0;
  Pipeline pipeline(cc, layer, limits, progress);
  const Status status = pipeline.Run(layer.diff_id, unpacker);
  news = pipeline.News();
  CRISP_TRY(Status(status));
  progress.state = LayerProgress::State::kUnpacked;
  return Status::Ok();
}

bool MayComeWhole(const CallContext& cc, const Status& failure) {
  return cc.Check().ok() && !IsOutage(failure.code());
}

}  // namespace crisp::imaged
