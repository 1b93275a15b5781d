#pragma once

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
#include "libs/base/result.h"
#include "services/imaged/core/image_source.h"
#include "services/imaged/core/limits.h"
#include "services/imaged/core/pipeline.h"

namespace crisp::imaged {

/// Opens a range of the blob that is pulled (ImageSource::OpenBlob).
using OpenBlob = std::function<Result<std::unique_ptr<BlobReader>>(const CallContext&, BlobRange)>;

/// How much one connection is asked for at a time.
inline constexpr std::uint64_t kPartSize = 16 * kBufferSize;  // 4 MiB

/// One large blob over several connections, part by part, each by a thread of its own. No part is
/// begun that lies more than `connections` parts ahead of the reader: that bounds the memory. Made
/// and read by one thread.
class RangedFetch {
 public:
  /// `first` is the open range of the first part; all others must have its version and total, which
  /// is `size`. Its connection is the caller's to count; each other one takes one of `slots`.
  /// `open` must outlive this.
  RangedFetch(const CallContext& cc, std::uint64_t size, std::unique_ptr<BlobReader> first,
              const OpenBlob& open, std::size_t connections, Slots& slots, BufferPool& pool);
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

  void Work(bool counted);
  /// The part that the thread is to fetch, once the reader is near enough. With `slot` one is taken
  /// for it. Nothing: there is no more to do.
  std::optional<std::uint64_t> Claim(Slots::Hold* slot);
  bool MayClaim() const;
  Status FetchPart(std::uint64_t number);
  Result<std::unique_ptr<BlobReader>> Open(BlobRange range);

  std::stop_source stop_;
  const CallContext cc_;
  std::stop_callback<std::function<void()>> outer_stop_;
  const std::uint64_t size_;
  const std::uint64_t part_count_;
  const OpenBlob& open_;
  const std::uint64_t ahead_;  // parts from the reader's on that may be there
  Slots& slots_;
  BufferPool& pool_;
  const std::string version_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::unique_ptr<BlobReader> first_;  // until the first part is claimed
  std::uint64_t front_ = 0;            // the reader's part
  std::deque<Part> parts_;             // that and all that are claimed
  std::vector<std::thread> threads_;
};

}  // namespace crisp::imaged
