#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "services/rund/streaming/spdy_frames.h"
#include "services/rund/streaming/spdy_headers.h"
#include "services/rund/streaming/stream.h"
#include "services/rund/streaming/wire.h"

namespace crisp::rund::streaming::spdy {

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
  explicit SpdyConnection(std::shared_ptr<Wire> wire) : wire_(std::move(wire)) {}

  void Begin(Handlers handlers);
  void Finish() override;
  void Abort(const Status& why) override { wire_->Abort(why); }
  void CheckPeer() override { wire_->CheckPeer(); }
  std::uint64_t traffic() const override { return traffic_; }

 private:
  class SpdyStream;
  using StreamRef = std::shared_ptr<SpdyStream>;

  /// Waits for what the client's windows hold back.
  void FinishWhenSent();
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
  void Drop(std::uint32_t id, RstCode code);
  void Answer(std::string frame);
  void Took(SpdyStream* stream, std::size_t bytes);
  void PauseOrGoOn();
  std::size_t WindowOf(const SpdyStream& stream) const;

  std::shared_ptr<Wire> wire_;
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
  std::uint64_t traffic_ = 0;
  bool finish_wanted_ = false;
  bool finishing_ = false;
  bool closed_ = false;
};

}  // namespace crisp::rund::streaming::spdy
