#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "libs/base/clock.h"
#include "libs/base/status.h"

namespace crisp::rund::streaming {

/// One of the byte streams that share a client's connection. Streaming thread only.
class Stream {
 public:
  struct Handlers {
    /// Bytes of the client, all of which the handler takes; it says Took() when they are used.
    std::function<void(std::string_view)> on_data;
    /// The client sends no more.
    std::function<void()> on_end;
    /// Room() is no longer 0.
    std::function<void()> on_room;
    /// Reset by the client, or its connection is gone.
    std::function<void()> on_gone;
  };
  virtual ~Stream() = default;

  /// What came before is handed over at once. Handlers may be replaced, or taken away by {}.
  void Listen(Handlers handlers) {
    handlers_ = std::move(handlers);
    if (!early_.empty() && handlers_.on_data) {
      const std::string bytes = std::move(early_);
      early_.clear();
      Data(bytes);
    }
    if (gone_ && handlers_.on_gone) return Call(handlers_.on_gone);
    if (ended_ && handlers_.on_end) Call(handlers_.on_end);
  }
  /// Nobody wants what the client sends, be it there already or yet to come: it counts as used, so
  /// that it is in nobody's way. `on_room`: when there is room, and when the stream is gone.
  void Discard(const std::function<void()>& on_room = nullptr) {
    Listen({.on_data = [this](std::string_view bytes) { Took(bytes.size()); },
            .on_end = nullptr,
            .on_room = on_room,
            .on_gone = on_room});
  }

  /// How many bytes Send() can pass on now.
  virtual std::size_t Room() const = 0;
  /// Takes all, whatever the room.
  virtual void Send(std::string_view bytes) = 0;
  /// Nothing more will be sent.
  virtual void End() = 0;
  /// Ends both directions at once.
  virtual void Reset() = 0;
  /// So many bytes of on_data have been used: the client may send as many more.
  virtual void Took(std::size_t bytes) = 0;

  bool gone() const { return gone_; }

 protected:
  void Data(std::string_view bytes) {
    if (handlers_.on_data) {
      // It may replace the handlers.
      const auto call = handlers_.on_data;
      call(bytes);
    } else {
      early_ += bytes;
    }
  }
  void Ended() {
    if (std::exchange(ended_, true) || gone_) return;
    Call(handlers_.on_end);
  }
  void RoomAgain() const { Call(handlers_.on_room); }
  void Gone() {
    if (std::exchange(gone_, true)) return;
    Call(handlers_.on_gone);
  }
  bool ended() const { return ended_; }

 private:
  // A copy, because it may replace the handlers.
  // NOLINTNEXTLINE(performance-unnecessary-value-param)
  static void Call(std::function<void()> fn) {
    if (fn) fn();
  }

  Handlers handlers_;
  std::string early_;  // bounded by the flow control of the connection
  bool ended_ = false;
  bool gone_ = false;
};

using StreamPtr = std::shared_ptr<Stream>;

/// What carries streams.
class Connection {
 public:
  virtual ~Connection() = default;
  /// All that was sent goes out, then the connection ends.
  virtual void Finish() = 0;
  virtual void Abort(const Status& why) = 0;
  /// To be called every few seconds: ends what nothing else would, be it a connection whose client
  /// has gone or one that Finish() waits for in vain.
  virtual void Check(SteadyTime now) = 0;
  /// Bytes of streams so far, both ways; frames that keep a connection alive do not count.
  virtual std::uint64_t traffic() const = 0;
};

}  // namespace crisp::rund::streaming
