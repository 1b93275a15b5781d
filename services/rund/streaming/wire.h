#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "libs/base/status.h"

namespace crisp::rund::streaming {

/// A client's connection after the upgrade: bytes (SPDY) or messages (WebSocket), over TCP or TLS.
/// All of it, handlers too, happens on the streaming thread.
class Wire {
 public:
  struct Handlers {
    /// A piece of what came; `message_end`: the last one of a message (always false for bytes).
    /// Valid during the call only.
    std::function<void(std::string_view piece, bool message_end)> on_piece;
    /// The queue has room again: see queued().
    std::function<void()> on_room;
    /// Once, the last one: the peer ended the connection (Ok), or it broke, or Abort was called.
    std::function<void(const Status&)> on_closed;
  };
  virtual ~Wire() = default;

  /// From here on it reads.
  virtual void Begin(Handlers handlers) = 0;
  /// While paused nothing is read, so that in the end the client cannot send. A peer that has gone
  /// is then seen by CheckPeer only.
  virtual void Pause(bool paused) = 0;
  /// Queues bytes, or one message. Never blocks; keep an eye on queued().
  virtual void Send(std::string bytes) = 0;
  virtual std::size_t queued() const = 0;
  /// Ends the connection when all that is queued has been sent; the peer has a few seconds to take
  /// it.
  virtual void Finish() = 0;
  virtual void Abort(const Status& why) = 0;
  /// Closes when the peer has gone: to be called now and then.
  virtual void CheckPeer() = 0;
};

/// Above this nothing more is taken from whoever makes the output, so a slow client costs so much
/// memory at most.
inline constexpr std::size_t kQueueHigh = std::size_t{256} << 10U;
/// What one stream's reader may be behind before the client is no longer read.
inline constexpr std::size_t kMaxUnused = std::size_t{128} << 10U;
/// on_room is called when the queue falls below.
inline constexpr std::size_t kQueueLow = std::size_t{128} << 10U;

}  // namespace crisp::rund::streaming
