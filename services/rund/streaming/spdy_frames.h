#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/base/result.h"

// The frames of SPDY/3.1 as bytes (draft-mbelshe-httpbis-spdy-00 and the session window of 3.1).
namespace crisp::rund::streaming::spdy {

enum class Type : std::uint16_t {
  kSynStream = 1,
  kSynReply = 2,
  kRstStream = 3,
  kSettings = 4,
  kPing = 6,
  kGoAway = 7,
  kHeaders = 8,
  kWindowUpdate = 9,
};

enum class RstCode : std::uint32_t {
  kProtocolError = 1,
  kInvalidStream = 2,
  kRefusedStream = 3,
  kUnsupportedVersion = 4,
  kCancel = 5,
  kInternalError = 6,
  kFlowControlError = 7,
  kStreamInUse = 8,
  kStreamAlreadyClosed = 9,
};

inline constexpr std::uint8_t kFlagFin = 1;
inline constexpr std::uint8_t kFlagUnidirectional = 2;
inline constexpr std::uint32_t kInitialWindow = 64 << 10U;
inline constexpr std::uint32_t kSettingInitialWindow = 7;
inline constexpr std::size_t kFrameHead = 8;
/// Of a control frame: a header block is never that long.
inline constexpr std::size_t kMaxControl = std::size_t{64} << 10U;

/// Big-endian numbers; `at` must be inside.
std::uint32_t Get32(std::string_view bytes, std::size_t at);
void Put32(std::string& to, std::uint32_t number);

struct Control {
  Type type{};
  std::uint8_t flags = 0;
  std::string_view payload;
};

/// Cuts a sequence of bytes into frames. Control frames are put together; the bytes of data frames
/// are passed on as they come.
class FrameReader {
 public:
  struct Handlers {
    std::function<Status(const Control&)> on_control;
    std::function<Status(std::uint32_t stream, std::string_view piece)> on_data;
    /// After the last byte of a data frame, also of an empty one.
    std::function<Status(std::uint32_t stream, std::uint8_t flags)> on_data_end;
  };
  explicit FrameReader(Handlers handlers) : handlers_(std::move(handlers)) {}

  /// Takes all of `bytes`, in whatever pieces. kInvalidArgument: this is not SPDY/3; a handler's
  /// failure is returned as it is. After a failure the reader must not be used any more.
  Status Feed(std::string_view bytes);

 private:
  Status Head();

  Handlers handlers_;
  std::string head_;     // of the frame under way, until it is complete
  std::string payload_;  // of a control frame
  bool in_frame_ = false;
  bool is_control_ = false;
  std::uint16_t type_ = 0;
  std::uint8_t flags_ = 0;
  std::uint32_t stream_ = 0;
  std::size_t left_ = 0;
};

std::string ControlFrame(Type type, std::uint8_t flags, std::string_view payload);
std::string DataFrame(std::uint32_t stream, std::uint8_t flags, std::string_view bytes);
std::string SynStream(std::uint32_t stream, std::uint8_t flags, std::string_view header_block);
std::string SynReply(std::uint32_t stream, std::string_view header_block);
std::string RstStream(std::uint32_t stream, RstCode code);
std::string Ping(std::uint32_t id);
std::string GoAway(std::uint32_t last_stream, std::uint32_t code);
std::string WindowUpdate(std::uint32_t stream, std::uint32_t delta);
/// One setting.
std::string Settings(std::uint32_t id, std::uint32_t value);

}  // namespace crisp::rund::streaming::spdy
