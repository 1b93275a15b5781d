#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "services/rund/streaming/spdy_frames.h"
#include "services/rund/streaming/spdy_headers.h"
#include "services/rund/streaming/stream.h"
#include "services/rund/streaming/wire.h"

namespace crisp::rund::streaming::spdy {

/// How far the readers of a connection's streams may be behind before the client is no longer read.
/// More than a window: a client that keeps to its windows never gets there.
struct Spill {
  std::size_t stream = kMaxUnused;
  std::size_t all = 8 * kMaxUnused;
  /// A stream whose reader takes nothing for so long while all others wait for it is reset. 0:
  /// never.
  std::chrono::seconds stall{0};
};

/// The server's end of a SPDY/3.1 connection. Streaming thread only.
///
/// Flow control: our own windows are always honest (WINDOW_UPDATE as bytes are used). The clients
/// in use know no windows at all: they neither keep to ours nor ever open theirs. So a client's
/// window counts from the moment on at which it shows that it has one (a SETTINGS with an initial
/// window, or any WINDOW_UPDATE); and when a client sends more than somebody takes, reading stops
/// until he does.
class SpdyConnection final : public Connection,
                             public std::enable_shared_from_this<SpdyConnection> {
 public:
  struct Handlers {
    /// A client's new stream: keep it, or Reset() it.
    std::function<void(const StreamPtr&, const Headers&)> on_stream;
    /// Once, after every stream's on_gone.
    std::function<void(const Status&)> on_closed;
  };
  explicit SpdyConnection(std::shared_ptr<Wire> wire, const Spill& spill = {})
      : wire_(std::move(wire)), spill_(spill) {}

  void Begin(Handlers handlers);
  void Finish() override;
  void Abort(const Status& why) override { wire_->Abort(why); }
  void Check(SteadyTime now) override;
  std::uint64_t traffic() const override { return traffic_; }

 private:
  class SpdyStream;
  using StreamRef = std::shared_ptr<SpdyStream>;

  /// Waits for what the client's windows hold back.
  void FinishWhenSent();
  void CheckFinish(SteadyTime now);
  void CheckStalled(SteadyTime now);
  /// The client speaks something else: told so, and the end.
  void Fail(Status why);
  void OnPiece(std::string_view piece);
  void OnRoom();
  void OnClosed(const Status& why);
  Status OnControl(const Control& control);
  Status OnSynStream(const Control& control);
  Status OnSettings(std::string_view payload);
  Status OnWindowUpdate(std::uint32_t id, std::uint32_t delta);
  Status OnData(std::uint32_t id, std::string_view piece);
  Status OnDataEnd(std::uint32_t id, std::uint8_t flags);

  StreamRef FindStream(std::uint32_t id) const;
  /// Forgets a stream once both directions have ended.
  void Settle(SpdyStream& stream);
  /// Ends a stream at once, and with it what it counted for.
  void Remove(const StreamRef& stream);
  void Drop(std::uint32_t id, RstCode code);
  void Answer(std::string frame);
  void Took(SpdyStream* stream, std::size_t bytes);
  void CountUnused(std::size_t before, std::size_t after);
  void CountUnsent(bool before, bool after);
  void PauseOrGoOn();
  std::size_t WindowOf(const SpdyStream& stream) const;

  std::shared_ptr<Wire> wire_;
  const Spill spill_;
  Handlers handlers_;
  std::unique_ptr<FrameReader> frames_;
  HeaderReader headers_in_;
  HeaderWriter headers_out_;
  std::map<std::uint32_t, StreamRef> streams_;
  std::uint32_t last_stream_ = 0;
  std::uint32_t room_turn_ = 0;  // whose turn it is to send
  bool client_has_windows_ = false;
  std::int64_t client_initial_window_ = kInitialWindow;
  std::int64_t send_window_ = kInitialWindow;  // of the whole connection
  std::size_t session_taken_ = 0;              // not yet told to the client
  std::size_t unused_ = 0;                     // of all streams
  std::size_t streams_behind_ = 0;             // more than spill_.stream
  std::size_t streams_unsent_ = 0;             // with bytes beyond the client's windows
  bool paused_ = false;
  std::uint64_t traffic_ = 0;
  std::uint64_t sent_ = 0;
  std::optional<SteadyTime> finish_moved_;
  std::uint64_t finish_sent_ = 0;
  Status failure_;
  bool finish_wanted_ = false;
  bool finishing_ = false;
  bool closed_ = false;
};

}  // namespace crisp::rund::streaming::spdy
