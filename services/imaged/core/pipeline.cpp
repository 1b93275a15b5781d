#include "services/imaged/core/pipeline.h"

#include <sys/mman.h>

#include "libs/base/check.h"
#include "libs/base/try.h"

namespace crisp::imaged {

void internal::Unmap::operator()(char* bytes) const { ::munmap(bytes, kBufferSize); }

Buffer BufferPool::Take() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      Buffer buffer = std::move(free_.back());
      free_.pop_back();
      return buffer;
    }
  }
  // Straight from the kernel, so that Trim really gives it back.
  void* bytes =
      ::mmap(nullptr, kBufferSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CRISP_CHECK(bytes != MAP_FAILED);
  Buffer buffer;
  buffer.bytes.reset(static_cast<char*>(bytes));
  return buffer;
}

void BufferPool::Give(Buffer buffer) {
  if (!buffer.bytes) return;
  buffer.size = 0;
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(buffer));
}

void BufferPool::Trim() {
  std::vector<Buffer> unused;
  const std::lock_guard lock(mutex_);
  unused.swap(free_);
}

template <typename Ready>
void BufferQueue::Wait(std::unique_lock<std::mutex>& lock, std::chrono::nanoseconds& waited,
                       Ready ready) {
  if (ready()) return;
  const auto start = std::chrono::steady_clock::now();
  changed_.wait(lock, ready);
  waited += std::chrono::steady_clock::now() - start;
}

std::chrono::nanoseconds BufferQueue::writer_waited() const {
  const std::lock_guard lock(mutex_);
  return writer_waited_;
}

std::chrono::nanoseconds BufferQueue::reader_waited() const {
  const std::lock_guard lock(mutex_);
  return reader_waited_;
}

bool BufferQueue::Push(Buffer buffer) {
  std::unique_lock lock(mutex_);
  Wait(lock, writer_waited_, [this] { return buffers_.size() < capacity_ || !aborted_.ok(); });
  if (!aborted_.ok()) return false;
  buffers_.push_back(std::move(buffer));
  if (buffers_.size() == 1) changed_.notify_all();
  return true;
}

void BufferQueue::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

void BufferQueue::Abort(const Status& why) {
  const std::lock_guard lock(mutex_);
  if (!aborted_.ok()) return;
  aborted_ = why;
  buffers_.clear();
  changed_.notify_all();
}

Result<std::optional<Buffer>> BufferQueue::Pop() {
  std::unique_lock lock(mutex_);
  Wait(lock, reader_waited_, [this] { return !buffers_.empty() || closed_ || !aborted_.ok(); });
  if (!aborted_.ok()) return aborted_;
  if (buffers_.empty()) return std::optional<Buffer>();
  std::optional<Buffer> buffer(std::move(buffers_.front()));
  buffers_.pop_front();
  if (buffers_.size() + 1 == capacity_) changed_.notify_all();
  return buffer;
}

QueueSource::~QueueSource() {
  if (current_) pool_.Give(std::move(*current_));
}

Result<std::string_view> QueueSource::Peek() {
  const std::string_view piece = CRISP_TRY(Next());
  peeked_ = true;
  return piece;
}

Result<std::string_view> QueueSource::Next() {
  if (peeked_) {
    peeked_ = false;
    return current_ ? current_->view() : std::string_view();
  }
  if (current_) pool_.Give(std::move(*current_));
  current_.reset();
  current_ = CRISP_TRY(queue_.Pop());
  return current_ ? current_->view() : std::string_view();
}

}  // namespace crisp::imaged
