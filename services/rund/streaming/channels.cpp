#include "services/rund/streaming/channels.h"

#include <algorithm>
#include <utility>

#include "libs/base/text.h"
#include "libs/base/try.h"

namespace crisp::rund::streaming {
namespace {

constexpr std::size_t kMaxMessage = std::size_t{32} << 10U;
constexpr std::uint8_t kCloseSignal = 255;

}  // namespace

std::optional<ChannelProtocol> ParseChannelProtocol(std::string_view name) {
  ChannelProtocol protocol;
  if (name.empty()) return protocol;
  if (name.size() > 3 && name[0] == 'v' && name[1] >= '1' && name[1] <= '5' && name[2] == '.') {
    protocol.version = name[1] - '0';
    name.remove_prefix(3);
  }
  constexpr std::string_view kBase64 = "base64.";
  if (name.starts_with(kBase64)) {
    protocol.base64 = true;
    name.remove_prefix(kBase64.size());
  }
  if (name != "channel.k8s.io") return std::nullopt;
  return protocol;
}

Status ChannelReader::Feed(std::string_view piece, bool message_end) {
  if (!in_message_) {
    if (piece.empty()) return Status::Ok();  // an empty message, or nothing of one yet
    in_message_ = true;
    channel_ = static_cast<std::uint8_t>(piece.front());
    if (protocol_.base64) {
      if (piece.front() < '0' || piece.front() > '9') {
        return InvalidArgument("a message whose channel is no digit");
      }
      channel_ = static_cast<std::size_t>(piece.front() - '0');
    }
    piece.remove_prefix(1);
  }
  if (message_end) in_message_ = false;
  if (protocol_.base64) return FeedBase64(piece, message_end);
  if (protocol_.version >= 5 && channel_ == kCloseSignal) {
    if (!piece.empty()) handlers_.on_close(static_cast<std::uint8_t>(piece.front()));
    return Status::Ok();
  }
  if (!piece.empty()) handlers_.on_data(channel_, piece);
  return Status::Ok();
}

Status ChannelReader::FeedBase64(std::string_view piece, bool message_end) {
  carry_ += piece;
  // All before the last four decodes on its own. Padding has to wait for the end of the message: in
  // front of anything else it is none.
  const std::size_t groups = std::min(carry_.find('='), carry_.size()) / 4 * 4;
  if (carry_.size() - groups > 4) return InvalidArgument("malformed base64");
  const std::size_t whole = message_end ? carry_.size() : groups;
  const std::string bytes = CRISP_TRY(FromBase64(std::string_view(carry_).substr(0, whole)));
  carry_.erase(0, whole);
  if (!bytes.empty()) handlers_.on_data(channel_, bytes);
  return Status::Ok();
}

std::string ChannelMessage(ChannelProtocol protocol, std::size_t channel, std::string_view bytes) {
  std::string message;
  if (protocol.base64) {
    message += static_cast<char>('0' + static_cast<char>(channel));
    return message + Base64(bytes);
  }
  message.reserve(1 + bytes.size());
  message += static_cast<char>(channel);
  message += bytes;
  return message;
}

class ChannelConnection::ChannelStream final : public Stream {
 public:
  ChannelStream(std::weak_ptr<ChannelConnection> connection, std::size_t channel)
      : connection_(std::move(connection)), channel_(channel) {}

  std::size_t Room() const override {
    const auto connection = connection_.lock();
    if (!connection || out_ended_ || gone()) return 0;
    return connection->wire_->queued() < kQueueHigh ? kMaxMessage : 0;
  }

  void Send(std::string_view bytes) override {
    const auto connection = connection_.lock();
    if (!connection || out_ended_ || gone()) return;
    do {
      const std::string_view part = bytes.substr(0, kMaxMessage);
      connection->traffic_ += part.size();
      connection->wire_->Send(ChannelMessage(connection->protocol_, channel_, part));
      bytes.remove_prefix(part.size());
    } while (!bytes.empty());
  }

  // The protocol has no word for it: a client sees the end of all when the connection ends.
  void End() override { out_ended_ = true; }
  void Reset() override { out_ended_ = true; }

  void Took(std::size_t bytes) override {
    if (bytes == 0) return;
    unused_ -= std::min(unused_, bytes);
    if (const auto connection = connection_.lock()) connection->PauseOrGoOn();
  }

  void OnData(std::string_view bytes) {
    if (ended()) return;
    unused_ += bytes.size();
    Data(bytes);
  }
  void OnEnd() { Ended(); }
  void OnRoom() {
    if (Room() > 0) RoomAgain();
  }
  void OnGone() { Gone(); }
  std::size_t unused() const { return unused_; }

 private:
  const std::weak_ptr<ChannelConnection> connection_;
  const std::size_t channel_;
  std::size_t unused_ = 0;
  bool out_ended_ = false;
};

std::vector<StreamPtr> ChannelConnection::Begin(std::size_t count,
                                                std::function<void(const Status&)> on_closed) {
  on_closed_ = std::move(on_closed);
  const std::weak_ptr<ChannelConnection> weak = weak_from_this();
  for (std::size_t i = 0; i < count; ++i) {
    streams_.push_back(std::make_shared<ChannelStream>(weak, i));
  }
  reader_ = std::make_unique<ChannelReader>(
      protocol_, ChannelReader::Handlers{.on_data =
                                             [this](std::size_t channel, std::string_view bytes) {
                                               traffic_ += bytes.size();
                                               if (channel < streams_.size())
                                                 streams_[channel]->OnData(bytes);
                                             },
                                         .on_close =
                                             [this](std::size_t channel) {
                                               if (channel < streams_.size())
                                                 streams_[channel]->OnEnd();
                                             }});
  wire_->Begin({.on_piece =
                    [weak](std::string_view piece, bool end) {
                      if (const auto self = weak.lock()) self->OnPiece(piece, end);
                    },
                .on_room =
                    [weak] {
                      if (const auto self = weak.lock()) self->OnRoom();
                    },
                .on_closed =
                    [weak](const Status& why) {
                      if (const auto self = weak.lock()) self->OnClosed(why);
                    }});
  return {streams_.begin(), streams_.end()};
}

void ChannelConnection::Finish() {
  if (!std::exchange(finishing_, true)) wire_->Finish();
}

void ChannelConnection::OnPiece(std::string_view piece, bool message_end) {
  if (finishing_) return;
  Status fed = reader_->Feed(piece, message_end);
  if (!fed.ok()) return wire_->Abort(fed);
  PauseOrGoOn();
}

void ChannelConnection::OnRoom() {
  // Each in its turn, so that one busy stream does not take all.
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    if (wire_->queued() >= kQueueHigh) return;
    room_turn_ = (room_turn_ + 1) % streams_.size();
    streams_[room_turn_]->OnRoom();
  }
}

void ChannelConnection::OnClosed(const Status& why) {
  for (const auto& stream : streams_) stream->OnGone();
  if (const auto done = std::exchange(on_closed_, nullptr)) done(why);
}

void ChannelConnection::PauseOrGoOn() {
  wire_->Pause(std::any_of(streams_.begin(), streams_.end(),
                           [](const auto& stream) { return stream->unused() > kMaxUnused; }));
}

}  // namespace crisp::rund::streaming
