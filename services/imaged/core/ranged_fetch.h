#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "services/imaged/core/image_source.h"
#include "services/imaged/core/limits.h"
#include "services/imaged/core/pipeline.h"

namespace crisp::imaged {

/// Opens a range of the blob that is pulled (ImageSource::OpenBlob).
using OpenBlob = std::function<Result<std::unique_ptr<BlobReader>>(const CallContext&, BlobRange)>;

/// How much one connection is asked for at a time.
inline constexpr std::uint64_t kPartSize = 16 * kBufferSize;  // 4 MiB

/// How many connections a blob comes over: as many as bring more. Tries twice as many as it has,
/// keeps them where they bring a fifth more, and otherwise goes back and tries again much later.
/// Not for several threads.
class ConnectionCount {
 public:
  ConnectionCount(std::size_t first, std::size_t most) : most_(most), kept_(first), now_(first) {}

  std::size_t now() const { return now_; }
  /// What came over now() of them, in bytes a second: sets the next now().
  void Measured(double rate);

 private:
  const std::size_t most_;
  std::size_t kept_;  // below now_: those are on trial
  std::size_t now_;
  double kept_rate_ = 0;
  int rest_ = 0;  // measurements until the next trial
};

/// How a large blob is spread over connections.
struct Spread {
  std::size_t first = 1;  // connections at the beginning
  std::size_t most = 1;
  /// For so long a number of connections is looked at; longer where one takes its time to begin.
  std::chrono::nanoseconds window = std::chrono::milliseconds(200);

  /// What is asked for first of a blob of that size.
  BlobRange FirstRange(std::uint64_t size) const {
    return {.from = 0, .size = first == 1 ? size : std::min(size, kPartSize)};
  }
};

/// One large blob over as many connections as bring more, each by a thread of its own: one stream
/// as long as there is one, else part by part. No part is begun that lies more than `most` parts
/// ahead of the reader: that bounds the memory. Made and read by one thread.
class RangedFetch {
 public:
  /// `first` is open at FirstRange; all others must have its version and total, which is `size`.
  /// Its connection is the caller's to count; each other one takes one of `slots`. `open` must
  /// outlive this.
  RangedFetch(const CallContext& cc, std::uint64_t size, std::unique_ptr<BlobReader> first,
              const OpenBlob& open, const Spread& spread, Slots& slots, BufferPool& pool);
  RangedFetch(const RangedFetch&) = delete;
  RangedFetch& operator=(const RangedFetch&) = delete;
  /// Breaks off what is under way and waits for it.
  ~RangedFetch();

  /// The next bytes, in order. Nothing at the end, and earlier where the source does not keep to
  /// ranges any more, breaks off without progress or the call ends: the rest is then to be had by
  /// one stream.
  std::optional<Buffer> Next();

 private:
  struct Part {
    std::deque<Buffer> buffers;
    bool done = false;
  };

  /// One thread's open range; it may reach over many parts.
  struct Stream {
    std::unique_ptr<BlobReader> reader;
    std::uint64_t opened_at = 0;
    std::uint64_t at = 0;
    std::uint64_t end = 0;
  };

  /// The thread of the connection with that number; the first one's is counted already.
  void Work(std::size_t worker);
  /// The part that the thread is to fetch, once it is wanted and the reader is near enough. A slot
  /// is taken for it unless it is the first one's. Nothing: there is no more to do.
  std::optional<std::uint64_t> Claim(std::size_t worker, Slots::Hold& slot);
  bool MayClaim(std::size_t worker) const;
  Status FetchPart(std::uint64_t number, std::size_t worker, Stream& stream);
  Status Open(std::uint64_t at, std::uint64_t part_end, Stream& stream);
  /// Bytes have come over one of the connections; with the lock held.
  void Measure(std::size_t worker, std::uint64_t count);

  std::stop_source stop_;
  const CallContext cc_;
  std::stop_callback<std::function<void()>> outer_stop_;
  const std::uint64_t size_;
  const std::uint64_t part_count_;
  const OpenBlob& open_;
  const Spread spread_;
  Slots& slots_;
  BufferPool& pool_;
  const std::string version_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::unique_ptr<BlobReader> first_;  // until the first part is claimed
  std::uint64_t front_ = 0;            // the reader's part
  std::deque<Part> parts_;             // that and all that are claimed
  ConnectionCount count_;
  std::vector<bool> flowing_;  // by connection: bytes come over it
  SteadyTime window_from_;
  std::uint64_t window_bytes_ = 0;
  std::chrono::nanoseconds slowest_open_{0};  // until the first bytes
  std::vector<std::thread> threads_;
};

}  // namespace crisp::imaged
