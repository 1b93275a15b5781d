#include "integration/harness/websocket_client.h"

#include "integration/harness/spdy_client.h"

namespace crisp::harness {

WebSocketClient::WebSocketClient(const Node& node, const std::string& url,
                                 const std::vector<std::string>& protocols) {
  loop_.Start();
  auto connected = http::WebSocket::Connect(
      CallContext::Background(std::chrono::seconds(20), "test"), loop_,
      http::Url::Parse(url).value(), {.protocols = protocols, .verify_tls = false},
      ConnectInNode(node, url));
  if (!connected.ok()) {
    error_ = connected.status().ToString();
    ended_ = true;
    return;
  }
  socket_ = *std::move(connected);
  socket_->Begin({.on_piece =
                      [this](std::string_view piece, bool end) {
                        const std::lock_guard lock(mutex_);
                        raw_ += piece;
                        if (!in_message_ && !piece.empty()) {
                          in_message_ = true;
                          channel_ = static_cast<unsigned char>(piece.front());
                          piece.remove_prefix(1);
                        }
                        channels_[channel_] += piece;
                        if (end) in_message_ = false;
                        changed_.notify_all();
                      },
                  .on_sent =
                      [this] {
                        const std::lock_guard lock(mutex_);
                        sent_ = true;
                        changed_.notify_all();
                      },
                  .on_closed =
                      [this](const Status&) {
                        const std::lock_guard lock(mutex_);
                        ended_ = true;
                        changed_.notify_all();
                      }});
}

WebSocketClient::~WebSocketClient() {
  loop_.Stop();
  socket_.reset();
}

void WebSocketClient::Send(const std::string& message, bool text) {
  std::unique_lock lock(mutex_);
  sent_ = false;
  socket_->Send(message, text);
  changed_.wait_for(lock, std::chrono::seconds(20), [this] { return sent_ || ended_; });
}

void WebSocketClient::SendTo(unsigned char channel, std::string_view bytes) {
  std::string message(1, static_cast<char>(channel));
  message += bytes;
  Send(message);
}

void WebSocketClient::CloseChannel(unsigned char channel) {
  Send({static_cast<char>(255), static_cast<char>(channel)});
}

std::string WebSocketClient::Of(unsigned char channel) {
  const std::lock_guard lock(mutex_);
  return channels_[channel];
}

std::string WebSocketClient::Raw() {
  const std::lock_guard lock(mutex_);
  return raw_;
}

bool WebSocketClient::ended() {
  const std::lock_guard lock(mutex_);
  return ended_;
}

bool WebSocketClient::AwaitEnd(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [this] { return ended_; });
}

}  // namespace crisp::harness
