#include "services/imaged/core/layer_pull.h"

#include <thread>

#include "libs/archive/decompress.h"
#include "libs/archive/tar.h"
#include "libs/archive/tar_writer.h"
#include "libs/base/try.h"
#include "libs/work/pause.h"
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
  Pipeline(const CallContext& cc, const Descriptor& blob, const OpenBlob& open,
           const LayerLimits& limits, LayerProgress& progress)
      : cc_(cc.WithStop(stop_.get_token())),
        outer_stop_(cc.stop(), [this] { stop_.request_stop(); }),
        blob_(blob),
        open_(open),
        limits_(limits),
        pool_(limits.buffers),
        max_plain_(limits.max_size.count() + kMaxOverhead),
        progress_(progress) {}

  Status Run(const digest::Digest& diff_id, Unpacker& unpacker);
  /// After Run.
  StageTimes times() const;

 private:
  using Time = std::chrono::nanoseconds;

  void Fetch();
  Status FetchAll(digest::Sha256& sum);
  Result<std::unique_ptr<BlobReader>> OpenRest();
  Status FetchFrom(BlobReader& blob, digest::Sha256& sum);
  Result<std::unique_ptr<BlobReader>> FetchRanges(digest::Sha256& sum);
  void Took(std::string_view bytes, digest::Sha256& sum);
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
  const OpenBlob& open_;
  const LayerLimits& limits_;
  BufferPool& pool_;
  const std::uint64_t max_plain_;
  LayerProgress& progress_;

  BufferQueue compressed_{kCompressedQueue};
  BufferQueue plain_{kPlainQueue};
  BufferQueue hashed_{kHashedQueue};
  std::uint64_t offset_ = 0;  // bytes of the blob taken in
  Buffer filling_;
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

void Pipeline::Took(std::string_view bytes, digest::Sha256& sum) {
  sum.Update(bytes);
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
  while (offset_ < blob_.size) {
    if (!filling_.bytes) filling_ = pool_.Take();
    const std::span<char> room(filling_.bytes.get() + filling_.size, kBufferSize - filling_.size);
    const std::uint64_t left = blob_.size - offset_;
    const std::size_t count = CRISP_TRY(blob.Read(
        cc_, room.first(static_cast<std::size_t>(std::min<std::uint64_t>(room.size(), left)))));
    if (count == 0) return Unavailable("the blob {} ends early", blob_.digest.str());
    filling_.size += count;
    Took({room.data(), count}, sum);
    if (filling_.size < kBufferSize && offset_ < blob_.size) continue;
    CRISP_TRY(HandOn(std::exchange(filling_, Buffer())));
  }
  return Status::Ok();
}

/// As much as comes in ranges, which may be nothing or all. Of a source that has none it answers
/// the stream of the whole blob.
Result<std::unique_ptr<BlobReader>> Pipeline::FetchRanges(digest::Sha256& sum) {
  Result<std::unique_ptr<BlobReader>> first = open_(cc_, limits_.spread.FirstRange(blob_.size));
  // Somebody may dislike ranges, and be had without.
  if (IsOutage(first.code())) return std::unique_ptr<BlobReader>();
  if (!first.ok() || !(*first)->is_range()) return first;
  if ((*first)->total() != blob_.size) return std::unique_ptr<BlobReader>();
  *progress_.from.lock() = (*first)->from();
  RangedFetch ranges(cc_, blob_.size, *std::move(first), open_, limits_.spread, limits_.connections,
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
  if (limits_.spread.most > 1 && blob_.size >= limits_.ranged_from.count())
    reader = CRISP_TRY(FetchRanges(sum));
  int breaks = 0;
  while (offset_ < blob_.size) {
    const std::uint64_t before = offset_;
    if (!reader) reader = CRISP_TRY(OpenRest());
    *progress_.from.lock() = reader->from();
    const std::uint64_t total = reader->total().value_or(blob_.size);
    if (total > blob_.size)
      return DataLoss("the blob {} has {} bytes, its manifest says {}", blob_.digest.str(), total,
                      blob_.size);
    const Status status = FetchFrom(*reader, sum);
    if (status.ok() || status.code() != Code::kUnavailable) return status;
    reader.reset();
    breaks = offset_ - before >= kProgress ? 1 : breaks + 1;
    if (breaks > kMaxBreaks)
      return DataLoss("the blob {} ends after {} of {} bytes ({})", blob_.digest.str(), offset_,
                      blob_.size, status.message());
    CRISP_TRY(work::Pause(cc_, std::chrono::milliseconds(100) * breaks));
  }
  return Status::Ok();
}

void Pipeline::Fetch() {
  const Stopwatch watch(fetch_took_);
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
    // By what has come: the manifest may claim any size.
    CRISP_TRY(limits_.expansion.Check(progress_.done, total));
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
  // "RegistryUnavailable" stays its first word.
  if (fetched_.code() == Code::kUnknown && unpacked.code() == Code::kUnknown) return fetched_;
  if (!unpacked.ok()) return std::move(unpacked).While("layer {}", name);
  if (blob_.file.empty() && diff_hex_ != diff_id.hex())
    return DataLoss("layer {} unpacks to the diff id sha256:{}, the image's config says {}", name,
                    diff_hex_, diff_id.str());
  return Status::Ok();
}

StageTimes Pipeline::times() const {
  return {
      .download = fetch_took_ - compressed_.writer_waited(),
      .inflate = inflate_took_ - compressed_.reader_waited() - plain_.writer_waited(),
      .digest = hash_took_ - plain_.reader_waited() - hashed_.writer_waited(),
      .unpack = unpack_took_ - hashed_.reader_waited(),
  };
}

}  // namespace

Status PullLayer(const CallContext& cc, const Descriptor& blob, const digest::Digest& diff_id,
                 const OpenBlob& open, Unpacker& unpacker, const LayerLimits& limits,
                 LayerProgress& progress, StageTimes& times) {
  Pipeline pipeline(cc, blob, open, limits, progress);
  const Status status = pipeline.Run(diff_id, unpacker);
  times = pipeline.times();
  CRISP_TRY(Status(status));
  progress.state = LayerProgress::State::kUnpacked;
  return Status::Ok();
}

}  // namespace crisp::imaged
