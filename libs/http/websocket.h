#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/http/url.h"
#include "libs/os/unique_fd.h"

namespace crisp::loop {
class Loop;
}

namespace crisp::http {

struct WebSocketOptions {
  std::vector<std::string> protocols;  // offered, the best first
  bool verify_tls = true;
};

/// The client's end of a WebSocket. Any thread may call it; handlers run on the loop.
class WebSocket {
 public:
  struct Handlers {
    /// A piece of a message; `end`: its last one. Valid during the call only.
    std::function<void(std::string_view piece, bool end)> on_piece;
    /// All that was sent has gone out.
    std::function<void()> on_sent;
    /// Once, the last one. Ok: the server closed, or Close was called.
    std::function<void(const Status&)> on_closed;
  };
  virtual ~WebSocket() = default;

  /// Connects to an http or https URL and asks for the upgrade; blocks (not on the loop, which must
  /// be running). `connected`: a TCP connection to use in place of making one.
  /// kUnavailable: nobody there, or no TLS; kFailedPrecondition: the server refuses, in its words;
  /// kDeadlineExceeded.
  static Result<std::shared_ptr<WebSocket>> Connect(const CallContext& cc, loop::Loop& loop,
                                                    const Url& url, const WebSocketOptions& options,
                                                    os::UniqueFd connected = {});

  /// The one that the server chose; "" = none.
  virtual const std::string& protocol() const = 0;
  /// Begins to read.
  virtual void Begin(Handlers handlers) = 0;
  /// Queues one binary (or text) message.
  virtual void Send(std::string message, bool text = false) = 0;
  /// The closing handshake, or what can be had of it.
  virtual void Close() = 0;
};

}  // namespace crisp::http
