#include "services/rund/streaming/attach_target.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <utility>

namespace crisp::rund::streaming {

using std::chrono::steady_clock;

namespace {

// conmon's: a tag, and at most 8192 bytes.
constexpr std::size_t kMaxPacket = 8193;
constexpr char kStdout = 2;
constexpr char kStderr = 3;
// Well below what conmon reads of a packet (32 KiB; the rest would be lost).
constexpr std::size_t kMaxInput = std::size_t{16} << 10U;
constexpr int kPacketsAtOnce = 64;
// What was waited of it comes back so much slower.
constexpr int kRefill = 30;
constexpr std::chrono::milliseconds kLeastPatience{1};

}  // namespace

AttachTarget::AttachTarget(loop::Loop& loop, AttachedContainer container)
    : AttachTarget(loop, std::move(container), Times()) {}

AttachTarget::AttachTarget(loop::Loop& loop, AttachedContainer container, const Times& times)
    : loop_(loop),
      container_(std::move(container)),
      times_(times),
      patience_left_(times.patience),
      patience_since_(steady_clock::now()) {
  socket_ = std::make_shared<Descriptor>(loop_, std::move(container_.socket));
}

void AttachTarget::Begin(RemoteStreams streams, std::function<void(const Outcome&)> on_end) {
  streams_ = std::move(streams);
  on_end_ = std::move(on_end);
  const std::weak_ptr<AttachTarget> weak = weak_from_this();
  const auto on_room = [weak] {
    if (const auto self = weak.lock()) self->OnRoom();
  };
  for (const StreamPtr& stream : {streams_.out, streams_.err}) {
    if (!stream) continue;
    stream->Discard(on_room);
  }
  if (streams_.in) {
    streams_.in->Listen({.on_data =
                             [weak](std::string_view bytes) {
                               if (const auto self = weak.lock()) self->OnData(bytes);
                             },
                         .on_end =
                             [weak] {
                               const auto self = weak.lock();
                               if (!self) return;
                               self->stdin_ended_ = true;
                               self->Write();
                             },
                         .on_room = nullptr,
                         .on_gone = nullptr});
  }
  Read();
}

StreamPtr AttachTarget::StreamOf(char tag) const {
  if (tag == kStdout) return streams_.out;
  return tag == kStderr ? streams_.err : nullptr;
}

bool AttachTarget::HasRoom() const {
  const auto takes = [](const StreamPtr& stream) {
    return !stream || stream->gone() || stream->Room() > 0;
  };
  return takes(streams_.out) && takes(streams_.err);
}

void AttachTarget::Read() {
  if (over_ || waiting_) return;
  const auto self = shared_from_this();
  std::array<char, kMaxPacket> packet;
  for (int i = 0; i < kPacketsAtOnce; ++i) {
    if (!leaving_out_ && !HasRoom()) {
      if (patience_ || BeginPatience()) return;  // OnRoom goes on
      leaving_out_ = true;
    }
    const ssize_t n = recv(socket_->fd(), packet.data(), packet.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return Wait();
    // The monitor ends its side; with our input unread it says ECONNRESET.
    if (n <= 0) return SetEnded();
    ++packets_;
    const std::string_view bytes(packet.data() + 1, static_cast<std::size_t>(n) - 1);
    const StreamPtr stream = StreamOf(packet[0]);
    if (!stream) continue;
    if (leaving_out_) {
      left_out_ += bytes.size();
    } else {
      stream->Send(bytes);
      if (over_) return;
    }
  }
  waiting_ = true;
  loop_.Post([weak = weak_from_this()] {
    const auto target = weak.lock();
    if (!target) return;
    target->waiting_ = false;
    target->Read();
  });
}

void AttachTarget::Wait() {
  waiting_ = true;
  socket_->WhenReadable([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    self->waiting_ = false;
    self->Read();
  });
}

void AttachTarget::OnRoom() {
  if (!HasRoom()) return;
  EndPatience();
  if (leaving_out_) TellLeftOut();
  Read();
}

bool AttachTarget::BeginPatience() {
  const SteadyTime now = steady_clock::now();
  patience_left_ = std::min(times_.patience, patience_left_ + (now - patience_since_) / kRefill);
  patience_since_ = now;
  if (patience_left_ < kLeastPatience) return false;
  patience_ = loop_.After(patience_left_, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->OnPatienceEnd();
  });
  return true;
}

void AttachTarget::EndPatience() {
  if (!patience_) return;
  patience_ = {};
  const SteadyTime now = steady_clock::now();
  patience_left_ -= std::min(patience_left_, now - patience_since_);
  patience_since_ = now;
}

void AttachTarget::OnPatienceEnd() {
  EndPatience();
  if (over_ || HasRoom()) return;
  leaving_out_ = true;
  Read();
}

void AttachTarget::TellLeftOut() {
  leaving_out_ = false;
  const std::uint64_t bytes = std::exchange(left_out_, 0);
  if (bytes == 0) return;
  // Where a program reads nothing but the output, it is no place for words of ours.
  const StreamPtr& stream = container_.tty ? streams_.out : streams_.err;
  if (!stream) {
    untold_ += bytes;
    return;
  }
  stream->Send(fmt::format("\r\n[crisp: {} bytes left out here: too slow a reader]\r\n", bytes));
}

void AttachTarget::OnData(std::string_view bytes) {
  if (!container_.takes_stdin) return streams_.in->Took(bytes.size());
  pending_ += bytes;
  Write();
}

void AttachTarget::Write() {
  if (over_ || writing_) return;
  std::size_t written = 0;
  while (written < pending_.size()) {
    const std::size_t part = std::min(pending_.size() - written, kMaxInput);
    const ssize_t n =
        send(socket_->fd(), pending_.data() + written, part, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      writing_ = true;
      socket_->WhenWritable([weak = weak_from_this()] {
        const auto self = weak.lock();
        if (!self) return;
        self->writing_ = false;
        self->Write();
      });
      break;
    }
    // Nobody takes it: the end comes by the other direction.
    written += n < 0 ? part : static_cast<std::size_t>(n);
  }
  pending_.erase(0, written);
  if (written > 0) streams_.in->Took(written);
  if (!over_ && pending_.empty() && std::exchange(stdin_ended_, false)) OnStdinEnd();
}

void AttachTarget::OnStdinEnd() {
  // conmon closes the container's stdin, unless it was told that more clients may come.
  if (container_.takes_stdin) shutdown(socket_->fd(), SHUT_WR);
  // Nothing that ends would end this session: the client has said all that it had to say.
  if (container_.takes_stdin && !container_.stdin_once && !container_.tty) EndWhenQuiet();
}

void AttachTarget::EndWhenQuiet() {
  quiet_ = loop_.After(times_.quiet, [weak = weak_from_this(), packets = packets_] {
    const auto self = weak.lock();
    if (!self || self->over_) return;
    if (self->packets_ == packets) return self->SetEnded();
    self->EndWhenQuiet();
  });
}

void AttachTarget::Resize(TerminalSize size) {
  if (over_ || !container_.tty) return;
  const std::string line = fmt::format("1 {} {}\n", size.height, size.width);
  // A fifo takes so short a line whole or not at all; the next size comes with the next change.
  static_cast<void>(write(container_.control.get(), line.data(), line.size()) > 0);
}

void AttachTarget::SetEnded() {
  if (left_out_ > 0) TellLeftOut();
  Outcome outcome;
  if (untold_ > 0) {
    outcome.status =
        Status(Code::kDataLoss, fmt::format("{} bytes of the output were left out: too "
                                            "slow a reader",
                                            untold_));
  }
  const auto done = std::exchange(on_end_, nullptr);
  Close();
  if (done) done(outcome);
}

void AttachTarget::Close() {
  if (std::exchange(over_, true)) return;
  on_end_ = nullptr;
  patience_ = {};
  quiet_ = {};
  socket_->Close();
  container_.control.reset();
  for (const StreamPtr& stream : {streams_.in, streams_.out, streams_.err}) {
    if (stream) stream->Discard();
  }
}

}  // namespace crisp::rund::streaming
