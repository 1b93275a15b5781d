#include "services/rund/streaming/spdy.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "libs/base/try.h"

namespace crisp::rund::streaming::spdy {
namespace {

constexpr std::size_t kMaxStreams = 2048;
constexpr std::size_t kMaxDataFrame = std::size_t{64} << 10U;
// A window is opened again when so much of it has been used.
constexpr std::size_t kUpdateAt = kInitialWindow / 2;
constexpr std::int64_t kMaxWindow = 0x7fffffff;
// Of answers to a client that asks and never reads.
constexpr std::size_t kMaxAnswers = 4 * kQueueHigh;
constexpr std::uint32_t kLow31 = 0x7fffffff;
// At the end, without progress, for a client to open its windows for the rest.
constexpr std::chrono::seconds kDrainTime{30};

}  // namespace

/// Held by the connection until both directions have ended, and by its user.
class SpdyConnection::SpdyStream final : public Stream {
 public:
  SpdyStream(std::shared_ptr<SpdyConnection> connection, std::uint32_t id, std::int64_t window)
      : send_window_(window), connection_(connection), id_(id) {}

  std::size_t Room() const override {
    const auto connection = connection_.lock();
    if (!connection || out_ended_ || gone() || !unsent_.empty()) return 0;
    if (connection->wire_->queued() >= kQueueHigh) return 0;
    return connection->WindowOf(*this);
  }

  void Send(std::string_view bytes) override {
    const auto connection = connection_.lock();
    if (!connection || out_ended_ || gone()) return;
    connection->CountUnsent(!unsent_.empty(), !unsent_.empty() || !bytes.empty());
    unsent_ += bytes;
    Push();
  }

  void End() override {
    if (out_ended_ || gone()) return;
    out_ended_ = true;
    Push();
  }

  void Reset() override {
    if (gone()) return;
    if (const auto connection = connection_.lock()) connection->Drop(id_, RstCode::kCancel);
  }

  void Took(std::size_t bytes) override {
    const std::size_t part = std::min(unused_, bytes);
    const auto connection = connection_.lock();
    if (part == 0 || !connection) return;
    moved_ = true;
    SetUnused(*connection, unused_ - part);
    connection->Took(this, part);
  }

  /// Sends what the windows allow.
  void Push() {
    const auto connection = connection_.lock();
    if (!connection || fin_sent_) return;
    std::string_view rest = unsent_;
    while (!rest.empty()) {
      const std::size_t part = std::min({rest.size(), connection->WindowOf(*this), kMaxDataFrame});
      if (part == 0) break;
      const bool last = out_ended_ && part == rest.size();
      connection->wire_->Send(DataFrame(id_, last ? kFlagFin : 0, rest.substr(0, part)));
      connection->traffic_ += part;
      connection->sent_ += part;
      connection->send_window_ -= static_cast<std::int64_t>(part);
      send_window_ -= static_cast<std::int64_t>(part);
      fin_sent_ = last;
      rest.remove_prefix(part);
    }
    connection->CountUnsent(!unsent_.empty(), !rest.empty());
    unsent_.erase(0, unsent_.size() - rest.size());
    if (out_ended_ && !fin_sent_ && unsent_.empty()) {
      connection->wire_->Send(DataFrame(id_, kFlagFin, {}));
      fin_sent_ = true;
    }
    if (fin_sent_) connection->Settle(*this);
    connection->FinishWhenSent();
  }

  void OnData(SpdyConnection& connection, std::string_view bytes) {
    SetUnused(connection, unused_ + bytes.size());
    Data(bytes);
  }
  /// It counts for nothing any more: how much of it was unused.
  std::size_t Leave(SpdyConnection& connection) {
    connection.CountUnsent(!unsent_.empty(), false);
    unsent_.clear();
    const std::size_t unused = unused_;
    SetUnused(connection, 0);
    return unused;
  }
  /// Since when its reader has taken nothing of what is there; `now` when it has.
  SteadyTime StalledSince(SteadyTime now) {
    if (std::exchange(moved_, false) || unused_ == 0 || !stalled_since_) stalled_since_ = now;
    return *stalled_since_;
  }
  void OnEnd() { Ended(); }
  void OnRoom() {
    if (!unsent_.empty()) Push();
    if (Room() > 0) RoomAgain();
  }
  void OnGone() { Gone(); }

  std::uint32_t id() const { return id_; }
  std::size_t unused() const { return unused_; }
  bool in_ended() const { return ended(); }
  bool over() const { return ended() && fin_sent_; }
  /// The client never hears us: a stream of its direction only.
  void NeverSend() { out_ended_ = fin_sent_ = true; }
  std::int64_t send_window_;
  std::size_t taken_ = 0;  // used, and not yet told to the client

  std::weak_ptr<SpdyConnection> connection_;

 private:
  void SetUnused(SpdyConnection& connection, std::size_t bytes) {
    connection.CountUnused(unused_, bytes);
    unused_ = bytes;
  }

  const std::uint32_t id_;
  std::string unsent_;  // beyond the client's windows; short, since Room() is asked first
  std::size_t unused_ = 0;
  std::optional<SteadyTime> stalled_since_;
  bool moved_ = false;
  bool out_ended_ = false;
  bool fin_sent_ = false;
};

void SpdyConnection::Begin(Handlers handlers) {
  handlers_ = std::move(handlers);
  const std::weak_ptr<SpdyConnection> weak = weak_from_this();
  frames_ = std::make_unique<FrameReader>(FrameReader::Handlers{
      .on_control = [this](const Control& control) { return OnControl(control); },
      .on_data = [this](std::uint32_t id, std::string_view piece) { return OnData(id, piece); },
      .on_data_end = [this](std::uint32_t id,
                            std::uint8_t flags) { return OnDataEnd(id, flags); }});
  wire_->Begin({.on_piece =
                    [weak](std::string_view piece, bool) {
                      if (const auto self = weak.lock()) self->OnPiece(piece);
                    },
                .on_room =
                    [weak] {
                      if (const auto self = weak.lock()) self->OnRoom();
                    },
                .on_closed =
                    [weak](const Status& why) {
                      if (const auto self = weak.lock()) self->OnClosed(why);
                    }});
}

void SpdyConnection::Finish() {
  finish_wanted_ = true;
  FinishWhenSent();
}

void SpdyConnection::FinishWhenSent() {
  if (!finish_wanted_ || streams_unsent_ > 0 || closed_ || std::exchange(finishing_, true)) return;
  wire_->Send(GoAway(last_stream_, 0));
  wire_->Finish();
}

void SpdyConnection::Check(SteadyTime now) {
  if (closed_) return;
  wire_->CheckPeer();
  CheckFinish(now);
  if (spill_.stall.count() > 0) CheckStalled(now);
}

void SpdyConnection::CheckFinish(SteadyTime now) {
  if (!finish_wanted_ || finishing_ || closed_) return;
  if (std::exchange(finish_sent_, sent_) != sent_ || !finish_moved_) finish_moved_ = now;
  if (now - *finish_moved_ < kDrainTime) return;
  wire_->Abort(DeadlineExceeded("the client does not take the rest"));
}

void SpdyConnection::CheckStalled(SteadyTime now) {
  std::vector<StreamRef> stalled;
  for (const auto& [id, stream] : streams_) {
    if (now - stream->StalledSince(now) >= spill_.stall) stalled.push_back(stream);
  }
  std::sort(stalled.begin(), stalled.end(),
            [](const auto& a, const auto& b) { return a->unused() > b->unused(); });
  for (const StreamRef& stream : stalled) {
    if (closed_ || !paused_) return;
    if (stream->unused() > spill_.stream || unused_ > spill_.all) {
      Drop(stream->id(), RstCode::kFlowControlError);
    }
  }
}

void SpdyConnection::Fail(Status why) {
  failure_ = std::move(why);
  finishing_ = true;
  wire_->Send(GoAway(last_stream_, static_cast<std::uint32_t>(RstCode::kProtocolError)));
  wire_->Finish();
}

void SpdyConnection::OnPiece(std::string_view piece) {
  if (finishing_ || closed_) return;
  Status fed = frames_->Feed(piece);
  // Whatever comes now would be understood wrongly.
  if (!fed.ok() && !finishing_ && !closed_) Fail(std::move(fed));
}

void SpdyConnection::OnRoom() {
  // Each in its turn, so that one busy stream does not take all.
  std::vector<StreamRef> order;
  order.reserve(streams_.size());
  const auto first = streams_.upper_bound(room_turn_);
  for (auto it = first; it != streams_.end(); ++it) order.push_back(it->second);
  for (auto it = streams_.begin(); it != first; ++it) order.push_back(it->second);
  for (const StreamRef& stream : order) {
    if (wire_->queued() >= kQueueHigh) return;
    room_turn_ = stream->id();
    stream->OnRoom();
  }
}

void SpdyConnection::OnClosed(const Status& why) {
  if (std::exchange(closed_, true)) return;
  for (const auto& [id, stream] : std::exchange(streams_, {})) stream->OnGone();
  if (const auto done = std::exchange(handlers_, {}).on_closed) {
    done(failure_.ok() ? why : failure_);
  }
}

void SpdyConnection::Answer(std::string frame) {
  if (wire_->queued() > kMaxAnswers) {
    wire_->Abort(ResourceExhausted("the client sends and does not read"));
    return;
  }
  wire_->Send(std::move(frame));
}

SpdyConnection::StreamRef SpdyConnection::FindStream(std::uint32_t id) const {
  const auto found = streams_.find(id);
  return found == streams_.end() ? nullptr : found->second;
}

Status SpdyConnection::OnControl(const Control& control) {
  const std::string_view payload = control.payload;
  const auto need = [&payload](std::size_t size) {
    return payload.size() >= size ? Status::Ok()
                                  : InvalidArgument("a SPDY frame that is too short");
  };
  switch (control.type) {
    case Type::kSynStream: return OnSynStream(control);
    case Type::kSettings: return OnSettings(payload);
    case Type::kSynReply:  // we open no streams
    case Type::kHeaders: {
      // The shared zlib stream must see every block.
      CRISP_TRY(need(4));
      CRISP_TRY(headers_in_.Read(payload.substr(4)));
      if ((control.flags & kFlagFin) != 0) return OnDataEnd(Get32(payload, 0) & kLow31, kFlagFin);
      return Status::Ok();
    }
    case Type::kRstStream: {
      CRISP_TRY(need(8));
      const std::uint32_t id = Get32(payload, 0) & kLow31;
      if (const StreamRef stream = FindStream(id)) Remove(stream);
      return Status::Ok();
    }
    case Type::kPing: {
      CRISP_TRY(need(4));
      // Odd ones are the client's, even ones would answer ours.
      const std::uint32_t id = Get32(payload, 0);
      if (id % 2 == 1) Answer(Ping(id));
      return Status::Ok();
    }
    case Type::kWindowUpdate:
      CRISP_TRY(need(8));
      return OnWindowUpdate(Get32(payload, 0) & kLow31, Get32(payload, 4) & kLow31);
    case Type::kGoAway:  // no new streams; those that are there go on
      return Status::Ok();
  }
  return Status::Ok();  // unknown types are to be passed over
}

Status SpdyConnection::OnSynStream(const Control& control) {
  if (control.payload.size() < 10) return InvalidArgument("a SYN_STREAM that is too short");
  const std::uint32_t id = Get32(control.payload, 0) & kLow31;
  const Headers headers = CRISP_TRY(headers_in_.Read(control.payload.substr(10)));
  if (id % 2 == 0 || id <= last_stream_) {
    return InvalidArgument("a SPDY stream of number {} after {}", id, last_stream_);
  }
  last_stream_ = id;
  if (streams_.size() >= kMaxStreams) {
    Answer(RstStream(id, RstCode::kRefusedStream));
    return Status::Ok();
  }
  auto stream = std::make_shared<SpdyStream>(shared_from_this(), id, client_initial_window_);
  streams_[id] = stream;
  if ((control.flags & kFlagUnidirectional) != 0) {
    stream->NeverSend();
  } else {
    Answer(SynReply(id, headers_out_.Write({})));
  }
  if ((control.flags & kFlagFin) != 0) stream->OnEnd();
  if (handlers_.on_stream) handlers_.on_stream(stream, headers);
  Settle(*stream);
  return Status::Ok();
}

Status SpdyConnection::OnSettings(std::string_view payload) {
  if (payload.size() < 4) return InvalidArgument("a SETTINGS that is too short");
  const std::size_t count = Get32(payload, 0);
  if (count > (payload.size() - 4) / 8) return InvalidArgument("a SETTINGS that is cut off");
  std::optional<std::int64_t> window;  // the last one counts
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t id = Get32(payload, 4 + i * 8) & 0xffffffU;
    const std::int64_t value = Get32(payload, 8 + i * 8);
    if (id != kSettingInitialWindow) continue;
    if (value > kMaxWindow) return InvalidArgument("an initial window of {} bytes", value);
    window = value;
  }
  if (!window) return Status::Ok();
  client_has_windows_ = true;
  for (const auto& [number, stream] : streams_) {
    stream->send_window_ += *window - client_initial_window_;
  }
  client_initial_window_ = *window;
  OnRoom();
  return Status::Ok();
}

Status SpdyConnection::OnWindowUpdate(std::uint32_t id, std::uint32_t delta) {
  client_has_windows_ = true;
  if (id == 0) {
    send_window_ += delta;
    if (send_window_ > kMaxWindow) return InvalidArgument("a window that overflows");
    OnRoom();
    return Status::Ok();
  }
  const StreamRef stream = FindStream(id);
  if (!stream) return Status::Ok();
  stream->send_window_ += delta;
  if (stream->send_window_ > kMaxWindow) {
    Drop(id, RstCode::kFlowControlError);
    return Status::Ok();
  }
  stream->OnRoom();
  return Status::Ok();
}

Status SpdyConnection::OnData(std::uint32_t id, std::string_view piece) {
  traffic_ += piece.size();
  const StreamRef stream = FindStream(id);
  if (!stream || stream->in_ended()) {
    if (id > last_stream_ || id % 2 == 0) Answer(RstStream(id, RstCode::kInvalidStream));
    Took(nullptr, piece.size());
    return Status::Ok();
  }
  stream->OnData(*this, piece);
  PauseOrGoOn();
  return Status::Ok();
}

Status SpdyConnection::OnDataEnd(std::uint32_t id, std::uint8_t flags) {
  if ((flags & kFlagFin) == 0) return Status::Ok();
  if (const StreamRef stream = FindStream(id)) {
    stream->OnEnd();
    Settle(*stream);
  }
  return Status::Ok();
}

void SpdyConnection::Settle(SpdyStream& stream) {
  if (stream.over() && stream.unused() == 0) streams_.erase(stream.id());
}

void SpdyConnection::Remove(const StreamRef& stream) {
  streams_.erase(stream->id());
  // What nobody will use now must not stay out of the connection's window.
  Took(nullptr, stream->Leave(*this));
  stream->OnGone();
  PauseOrGoOn();
  FinishWhenSent();
}

void SpdyConnection::Drop(std::uint32_t id, RstCode code) {
  const StreamRef stream = FindStream(id);
  if (!stream) return;
  Answer(RstStream(id, code));
  Remove(stream);
}

void SpdyConnection::Took(SpdyStream* stream, std::size_t bytes) {
  if (closed_ || finishing_) return;
  session_taken_ += bytes;
  if (session_taken_ >= kUpdateAt) {
    Answer(WindowUpdate(0, static_cast<std::uint32_t>(std::exchange(session_taken_, 0))));
  }
  if (stream == nullptr) return;
  stream->taken_ += bytes;
  if (stream->taken_ >= kUpdateAt && !stream->in_ended() && !stream->gone()) {
    Answer(
        WindowUpdate(stream->id(), static_cast<std::uint32_t>(std::exchange(stream->taken_, 0))));
  }
  Settle(*stream);
  PauseOrGoOn();
}

void SpdyConnection::CountUnused(std::size_t before, std::size_t after) {
  unused_ += after - before;
  streams_behind_ += static_cast<std::size_t>(after > spill_.stream);
  streams_behind_ -= static_cast<std::size_t>(before > spill_.stream);
}

void SpdyConnection::CountUnsent(bool before, bool after) {
  streams_unsent_ += static_cast<std::size_t>(after);
  streams_unsent_ -= static_cast<std::size_t>(before);
}

void SpdyConnection::PauseOrGoOn() {
  paused_ = streams_behind_ > 0 || unused_ > spill_.all;
  wire_->Pause(paused_);
}

std::size_t SpdyConnection::WindowOf(const SpdyStream& stream) const {
  if (!client_has_windows_) return kMaxDataFrame;
  const std::int64_t window = std::min(send_window_, stream.send_window_);
  return window > 0 ? static_cast<std::size_t>(window) : 0;
}

}  // namespace crisp::rund::streaming::spdy
