#include "services/rund/streaming/attach_target.h"

#include <fmt/format.h>

#include <utility>

namespace crisp::rund::streaming {

AttachTarget::AttachTarget(AttachHub::Share& share, std::string container_id)
    : share_(share), id_(std::move(container_id)) {}

std::unique_ptr<Outlet> AttachTarget::MakeOutlet(const StreamPtr& stream) {
  const std::weak_ptr<AttachTarget> weak = weak_from_this();
  if (stream) {
    stream->Discard([weak] {
      if (const auto self = weak.lock()) self->OnRoom();
    });
  }
  return std::make_unique<Outlet>(share_.outlets, stream, [weak](std::uint64_t bytes) {
    if (const auto self = weak.lock()) self->OnGap(bytes);
  });
}

void AttachTarget::Begin(RemoteStreams streams, std::function<void(const Outcome&)> on_end) {
  streams_ = std::move(streams);
  on_end_ = std::move(on_end);
  out_ = MakeOutlet(streams_.out);
  err_ = MakeOutlet(streams_.err);
  hub_ = AttachHub::Of(share_, id_);
  if (size_) hub_->Resize(*size_);
  if (streams_.in) {
    const std::weak_ptr<AttachTarget> weak = weak_from_this();
    streams_.in->Listen({.on_data =
                             [weak](std::string_view bytes) {
                               const auto self = weak.lock();
                               if (!self) return;
                               self->pending_ += bytes;
                               self->Write();
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
  hub_->Join(shared_from_this());
}

void AttachTarget::OnOutput(bool is_stderr, Packet& packet) {
  ++packets_;
  (is_stderr ? err_ : out_)->Put(packet);
}

void AttachTarget::OnRoom() {
  if (over_ || !out_ || !err_) return;
  out_->OnRoom();
  err_->OnRoom();
  if (!over_) hub_->OnTaken();
}

void AttachTarget::OnGap(std::uint64_t bytes) {
  // Where a program reads nothing but the output, it is no place for words of ours.
  const bool terminal = hub_->container() != nullptr && hub_->container()->tty;
  if (!terminal && !streams_.err) {
    untold_ += bytes;
    return;
  }
  (terminal ? out_ : err_)
      ->Say(fmt::format("\r\n[crisp: {} bytes left out here: too slow a reader]\r\n", bytes));
}

void AttachTarget::Write() {
  if (over_ || !hub_ || hub_->container() == nullptr) return;
  std::size_t written = 0;
  while (written < pending_.size()) {
    const std::size_t part = hub_->Write(std::string_view(pending_).substr(written));
    if (part == 0) break;
    written += part;
  }
  pending_.erase(0, written);
  if (written > 0) streams_.in->Took(written);
  if (!over_ && pending_.empty() && std::exchange(stdin_ended_, false)) OnStdinEnd();
}

void AttachTarget::OnStdinEnd() {
  hub_->EndInput();
  const AttachedContainer& container = *hub_->container();
  // Nothing that ends would end this session: the client has said all that it had to say.
  if (container.takes_stdin && !container.stdin_once && !container.tty) EndWhenQuiet();
}

void AttachTarget::EndWhenQuiet() {
  quiet_ = share_.loop.After(share_.times.quiet, [weak = weak_from_this(), packets = packets_] {
    const auto self = weak.lock();
    if (!self || self->over_) return;
    if (self->packets_ == packets) return self->SetEnded(Status::Ok());
    self->EndWhenQuiet();
  });
}

void AttachTarget::Resize(TerminalSize size) {
  if (over_) return;
  size_ = size;
  if (hub_) hub_->Resize(size);
}

void AttachTarget::SetEnded(const Status& why) {
  if (over_) return;
  out_->Finish();
  err_->Finish();
  Outcome outcome{why, 0};
  if (why.ok() && untold_ > 0) {
    outcome.status =
        Status(Code::kDataLoss,
               fmt::format("{} bytes of the output were left out: too slow a reader", untold_));
  }
  const auto done = std::exchange(on_end_, nullptr);
  Close();
  if (done) done(outcome);
}

void AttachTarget::Close() {
  if (std::exchange(over_, true)) return;
  on_end_ = nullptr;
  quiet_ = {};
  // Before it has begun.
  if (!hub_) return;
  out_->Clear();
  err_->Clear();
  hub_->Leave(*this);
  // A client that is gone has ended its stdin, too.
  if (streams_.in) hub_->EndInput();
  for (const StreamPtr& stream : {streams_.in, streams_.out, streams_.err}) {
    if (stream) stream->Discard();
  }
}

}  // namespace crisp::rund::streaming
