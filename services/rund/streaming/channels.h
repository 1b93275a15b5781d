#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "services/rund/streaming/stream.h"
#include "services/rund/streaming/wire.h"

// Streams over WebSocket messages: [v1-v5.][base64.]channel.k8s.io. A message's first byte is its
// channel; in base64 it is that number as a digit, and the rest is base64.
namespace crisp::rund::streaming {

struct ChannelProtocol {
  int version = 1;  // 1 to 5; from 4 on ends are told as JSON, in 5 a client can close its stdin
  bool base64 = false;
};
/// "v4.base64.channel.k8s.io"; "" is version 1. Nothing: unknown.
std::optional<ChannelProtocol> ParseChannelProtocol(std::string_view name);
/// How many channels there are: a digit's, or a byte's but for the last one, which is the close
/// signal.
constexpr std::size_t MaxChannels(ChannelProtocol protocol) { return protocol.base64 ? 10 : 255; }

/// Takes messages apart, piece by piece.
class ChannelReader {
 public:
  struct Handlers {
    std::function<void(std::size_t channel, std::string_view bytes)> on_data;
    std::function<void(std::size_t channel)> on_close;
  };
  ChannelReader(ChannelProtocol protocol, Handlers handlers)
      : protocol_(protocol), handlers_(std::move(handlers)) {}

  /// kInvalidArgument: a message that is none of this protocol.
  Status Feed(std::string_view piece, bool message_end);

 private:
  Status FeedBase64(std::string_view piece, bool message_end);

  const ChannelProtocol protocol_;
  const Handlers handlers_;
  bool in_message_ = false;
  std::size_t channel_ = 0;
  std::string carry_;  // base64 characters that make no byte yet
};

/// One message.
std::string ChannelMessage(ChannelProtocol protocol, std::size_t channel, std::string_view bytes);

/// The streams of a WebSocket, one per channel. WebSocket has one window for all: while somebody
/// does not take what came for one channel, the client can send on none.
class ChannelConnection final : public Connection,
                                public std::enable_shared_from_this<ChannelConnection> {
 public:
  ChannelConnection(std::shared_ptr<Wire> wire, ChannelProtocol protocol)
      : wire_(std::move(wire)), protocol_(protocol) {}

  /// Channels 0 to count - 1. `on_closed` once, after every stream's on_gone.
  std::vector<StreamPtr> Begin(std::size_t count, std::function<void(const Status&)> on_closed);
  void Finish() override;
  void Abort(const Status& why) override { wire_->Abort(why); }
  void Check(SteadyTime /*now*/) override { wire_->CheckPeer(); }
  std::uint64_t traffic() const override { return traffic_; }

 private:
  class ChannelStream;
  void OnPiece(std::string_view piece, bool message_end);
  void OnRoom();
  void OnClosed(const Status& why);
  void PauseOrGoOn();

  std::shared_ptr<Wire> wire_;
  const ChannelProtocol protocol_;
  std::unique_ptr<ChannelReader> reader_;
  std::vector<std::shared_ptr<ChannelStream>> streams_;
  std::function<void(const Status&)> on_closed_;
  std::size_t room_turn_ = 0;  // whose turn it is to send
  std::uint64_t traffic_ = 0;
  bool finishing_ = false;
};

}  // namespace crisp::rund::streaming
