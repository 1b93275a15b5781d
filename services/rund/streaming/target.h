#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "libs/base/status.h"
#include "services/rund/streaming/stream.h"

namespace crisp::rund::streaming {

/// How a session ended.
struct Outcome {
  Status status;  // not Ok: the session failed, and this says why
  int exit_code = 0;
};

struct TerminalSize {
  std::uint16_t width = 0;
  std::uint16_t height = 0;
};

/// The client's streams; null = not asked for.
struct RemoteStreams {
  StreamPtr in;
  StreamPtr out;
  StreamPtr err;
};

/// What a client's exec or attach talks to. Streaming thread only.
class Target {
 public:
  virtual ~Target() = default;
  /// `on_end` once, when all output has been handed to the streams. Not after Close().
  virtual void Begin(RemoteStreams streams, std::function<void(const Outcome&)> on_end) = 0;
  virtual void Resize(TerminalSize size) = 0;
  /// The client has gone: lets go of everything.
  virtual void Close() = 0;
};

}  // namespace crisp::rund::streaming
