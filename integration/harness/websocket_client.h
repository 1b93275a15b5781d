#pragma once

#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "integration/harness/node.h"
#include "libs/http/websocket.h"
#include "libs/loop/loop.h"

namespace crisp::harness {

/// A WebSocket client of rund's streaming server, inside the node. Messages are taken apart by
/// their channel, the first byte (which stays in `raw`).
class WebSocketClient {
 public:
  WebSocketClient(const Node& node, const std::string& url,
                  const std::vector<std::string>& protocols);
  ~WebSocketClient();
  WebSocketClient(const WebSocketClient&) = delete;
  WebSocketClient& operator=(const WebSocketClient&) = delete;

  /// "" when connected.
  const std::string& error() const { return error_; }
  const std::string& protocol() const { return socket_->protocol(); }
  /// Returns when it has gone out.
  void Send(const std::string& message, bool text = false);
  void SendTo(unsigned char channel, std::string_view bytes);
  /// v5: nothing more comes for this channel.
  void CloseChannel(unsigned char channel);
  /// The bytes of a channel so far.
  std::string Of(unsigned char channel);
  std::string Raw();
  bool ended();
  /// Until the server has ended the connection.
  bool AwaitEnd(std::chrono::milliseconds timeout = std::chrono::seconds(20));
  void Close() { socket_->Close(); }

 private:
  loop::Loop loop_;
  std::shared_ptr<http::WebSocket> socket_;
  std::string error_;
  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::array<std::string, 256> channels_;
  std::string raw_;
  bool in_message_ = false;
  unsigned char channel_ = 0;
  bool sent_ = true;
  bool ended_ = false;
};

}  // namespace crisp::harness
