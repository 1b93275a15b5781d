#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <vector>

#include "libs/archive/source.h"
#include "libs/base/result.h"

namespace crisp::imaged {

inline constexpr std::size_t kBufferSize = std::size_t{256} << 10U;

namespace internal {
struct Unmap {
  void operator()(char* bytes) const;
};
}  // namespace internal

/// 256 KB from a BufferPool, and how much of it is filled.
struct Buffer {
  std::unique_ptr<char, internal::Unmap> bytes;
  std::size_t size = 0;

  std::string_view view() const { return {bytes.get(), size}; }
};

/// Buffers that all pulls share. Any thread.
class BufferPool {
 public:
  Buffer Take();
  void Give(Buffer buffer);
  /// Gives the memory of all that are unused back to the kernel.
  void Trim();

 private:
  std::mutex mutex_;
  std::vector<Buffer> free_;
};

/// What one stage of a pipeline hands to the next. One writer and one reader.
class BufferQueue {
 public:
  explicit BufferQueue(std::size_t capacity) : capacity_(capacity) {}

  /// Waits for room; false when the queue was aborted (the buffer is dropped).
  bool Push(Buffer buffer);
  /// The writer is done.
  void Close();
  /// Wakes both ends: the reader gets `why` once, at once; the writer is refused. The first reason
  /// stays.
  void Abort(const Status& why);
  /// Nothing at the end; the reason after Abort.
  Result<std::optional<Buffer>> Pop();

  /// How long the writer has waited for room and the reader for buffers, up to now.
  std::chrono::nanoseconds writer_waited() const;
  std::chrono::nanoseconds reader_waited() const;

 private:
  /// Waits for `ready`, and adds what that took to `waited`.
  template <typename Ready>
  void Wait(std::unique_lock<std::mutex>& lock, std::chrono::nanoseconds& waited, Ready ready);

  const std::size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Buffer> buffers_;
  bool closed_ = false;
  Status aborted_;
  std::chrono::nanoseconds writer_waited_{0};
  std::chrono::nanoseconds reader_waited_{0};
};

/// Reads a queue as pieces; used-up buffers go back to the pool.
class QueueSource final : public archive::ChunkSource {
 public:
  QueueSource(BufferQueue& queue, BufferPool& pool) : queue_(queue), pool_(pool) {}
  ~QueueSource() override;
  Result<std::string_view> Next() override;
  /// The next piece without taking it: the following Next answers it again.
  Result<std::string_view> Peek();

 private:
  BufferQueue& queue_;
  BufferPool& pool_;
  std::optional<Buffer> current_;
  bool peeked_ = false;
};

}  // namespace crisp::imaged
