#include "services/rund/streaming/pump.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace crisp::rund::streaming {
namespace {

constexpr std::size_t kChunk = std::size_t{64} << 10U;
// Then the others have their turn.
constexpr int kChunksAtOnce = 8;
// More than a terminal holds between its two sides.
constexpr int kMaxInTerminal = 64 << 10;

}  // namespace

void InPump::Begin(std::function<void()> on_gone, std::function<void()> on_room) {
  const std::weak_ptr<InPump> weak = weak_from_this();
  stream_->Listen({.on_data =
                       [weak](std::string_view bytes) {
                         if (const auto self = weak.lock()) self->OnData(bytes);
                       },
                   .on_end =
                       [weak] {
                         const auto self = weak.lock();
                         if (!self) return;
                         self->ended_ = true;
                         self->CheckEnd();
                       },
                   .on_room = std::move(on_room),
                   .on_gone = std::move(on_gone)});
}

void InPump::OnData(std::string_view bytes) {
  if (broken_) return stream_->Took(bytes.size());
  if (!bytes.empty()) last_byte_ = bytes.back();
  const std::size_t written = pending_.empty() ? WriteNow(bytes) : 0;
  if (broken_) return stream_->Took(bytes.size());
  pending_ += bytes.substr(written);
  if (!pending_.empty() && !waiting_) AwaitRoom();
  if (written > 0) stream_->Took(written);
}

void InPump::Append(std::string_view bytes) {
  if (broken_) return;
  const std::size_t written = pending_.empty() ? WriteNow(bytes) : 0;
  if (broken_) return;
  pending_ += bytes.substr(written);
  own_ += bytes.size() - written;
  if (!pending_.empty() && !waiting_) AwaitRoom();
}

/// As much as the descriptor takes; Break() when it never will.
std::size_t InPump::WriteNow(std::string_view bytes) {
  std::size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t n = write(to_->fd(), bytes.data() + written, bytes.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN) Break();
    if (n < 0) break;
    written += static_cast<std::size_t>(n);
  }
  return written;
}

void InPump::AwaitRoom() {
  waiting_ = true;
  to_->WhenWritable([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->Write();
  });
}

void InPump::Write() {
  waiting_ = false;
  const std::size_t written = WriteNow(pending_);
  if (broken_) return;
  // The client may send again what was written: it must not be kept as well.
  pending_.erase(0, written);
  const std::size_t own_written = own_ - std::min(own_, pending_.size());
  own_ -= own_written;
  if (!pending_.empty()) AwaitRoom();
  if (written > own_written) stream_->Took(written - own_written);
  CheckEnd();
}

void InPump::Break() {
  if (std::exchange(broken_, true)) return;
  const std::size_t lost = std::exchange(pending_, {}).size() - std::exchange(own_, 0);
  if (lost > 0) stream_->Took(lost);
  End();
}

void InPump::CheckEnd() {
  if (ended_ && pending_.empty()) End();
}

void InPump::End() {
  if (const auto done = std::exchange(on_end_, nullptr)) done();
}

void OutPump::Begin() { Read(); }

void OutPump::Read() {
  if (ended_ || waiting_) return;
  std::vector<char>& buffer = share_.buffer;
  if (buffer.empty()) buffer.resize(kChunk);
  const auto self = shared_from_this();
  for (int i = 0; i < kChunksAtOnce; ++i) {
    if (total_ >= last_byte_) return SetEnded();
    const bool wanted = stream_ && !stream_->gone();
    const std::size_t room = wanted ? stream_->Room() : kChunk;
    if (room == 0) return;  // OnRoom goes on
    const ssize_t n = read(from_->fd(), buffer.data(), std::min(room, buffer.size()));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      if (last_byte_ != UINT64_MAX) return SetEnded();
      return Wait();
    }
    // A terminal whose other side is closed says EIO.
    if (n <= 0) {
      broken_ = n < 0 && errno != EIO;
      return SetEnded();
    }
    total_ += static_cast<std::uint64_t>(n);
    if (wanted) stream_->Send({buffer.data(), static_cast<std::size_t>(n)});
    if (ended_) return;
  }
  waiting_ = true;
  share_.loop.Post([weak = weak_from_this()] {
    const auto again = weak.lock();
    if (!again) return;
    again->waiting_ = false;
    again->Read();
  });
}

void OutPump::Wait() {
  waiting_ = true;
  from_->WhenReadable([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    self->waiting_ = false;
    self->Read();
  });
}

void OutPump::ExpectEnd(std::chrono::nanoseconds drain) {
  if (ended_) return;
  drain_ = share_.loop.After(drain, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->OnDrained();
  });
}

void OutPump::OnDrained() {
  if (ended_) return;
  // Of a terminal the kernel counts only a part: there, what can be read without waiting is the
  // rest.
  int there = kMaxInTerminal;
  if (isatty(from_->fd()) == 0 && ioctl(from_->fd(), FIONREAD, &there) != 0) there = 0;
  last_byte_ = total_ + static_cast<std::uint64_t>(std::max(there, 0));
  if (total_ >= last_byte_) return SetEnded();
  // Whether there is anything to wait for or not.
  waiting_ = false;
  Read();
}

void OutPump::SetEnded() {
  if (std::exchange(ended_, true)) return;
  drain_.Cancel();
  if (const auto done = std::exchange(on_end_, nullptr)) done();
}

}  // namespace crisp::rund::streaming
