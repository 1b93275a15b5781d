#include "services/rund/streaming/spdy_frames.h"

#include <algorithm>

#include "libs/base/try.h"

namespace crisp::rund::streaming::spdy {
namespace {

constexpr std::uint16_t kVersion = 3;
constexpr std::uint32_t kLow31 = 0x7fffffff;
constexpr std::uint32_t kLow24 = 0xffffff;

std::uint8_t Byte(std::string_view bytes, std::size_t at) {
  return static_cast<std::uint8_t>(bytes[at]);
}

}  // namespace

std::uint32_t Get32(std::string_view bytes, std::size_t at) {
  return std::uint32_t{Byte(bytes, at)} << 24U | std::uint32_t{Byte(bytes, at + 1)} << 16U |
         std::uint32_t{Byte(bytes, at + 2)} << 8U | Byte(bytes, at + 3);
}

void Put32(std::string& to, std::uint32_t number) {
  for (unsigned shift = 32; shift > 0; shift -= 8) {
    to += static_cast<char>(number >> (shift - 8U) & 0xffU);
  }
}

Status FrameReader::Head() {
  const std::uint32_t first = Get32(head_, 0);
  const std::uint32_t second = Get32(head_, 4);
  head_.clear();
  in_frame_ = true;
  is_control_ = (first & ~kLow31) != 0;
  flags_ = static_cast<std::uint8_t>(second >> 24U);
  left_ = second & kLow24;
  if (!is_control_) {
    stream_ = first & kLow31;
    return Status::Ok();
  }
  const auto version = static_cast<std::uint16_t>((first & kLow31) >> 16U);
  if (version != kVersion) return InvalidArgument("a SPDY frame of version {}", version);
  type_ = static_cast<std::uint16_t>(first & 0xffffU);
  if (left_ > kMaxControl) return InvalidArgument("a SPDY control frame of {} bytes", left_);
  payload_.clear();
  return Status::Ok();
}

Status FrameReader::Feed(std::string_view bytes) {
  while (!bytes.empty() || (in_frame_ && left_ == 0)) {
    if (!in_frame_) {
      const std::size_t part = std::min(kFrameHead - head_.size(), bytes.size());
      head_ += bytes.substr(0, part);
      bytes.remove_prefix(part);
      if (head_.size() < kFrameHead) return Status::Ok();
      CRISP_TRY(Head());
    }
    const std::string_view piece = bytes.substr(0, left_);
    bytes.remove_prefix(piece.size());
    left_ -= piece.size();
    if (is_control_) {
      payload_ += piece;
    } else if (!piece.empty()) {
      CRISP_TRY(handlers_.on_data(stream_, piece));
    }
    if (left_ > 0) continue;
    in_frame_ = false;
    if (is_control_) {
      CRISP_TRY(handlers_.on_control({static_cast<Type>(type_), flags_, payload_}));
    } else {
      CRISP_TRY(handlers_.on_data_end(stream_, flags_));
    }
  }
  return Status::Ok();
}

std::string ControlFrame(Type type, std::uint8_t flags, std::string_view payload) {
  std::string frame;
  frame.reserve(kFrameHead + payload.size());
  Put32(frame, ~kLow31 | std::uint32_t{kVersion} << 16U | static_cast<std::uint32_t>(type));
  Put32(frame, std::uint32_t{flags} << 24U | static_cast<std::uint32_t>(payload.size()));
  frame += payload;
  return frame;
}

std::string DataFrame(std::uint32_t stream, std::uint8_t flags, std::string_view bytes) {
  std::string frame;
  frame.reserve(kFrameHead + bytes.size());
  Put32(frame, stream);
  Put32(frame, std::uint32_t{flags} << 24U | static_cast<std::uint32_t>(bytes.size()));
  frame += bytes;
  return frame;
}

std::string SynStream(std::uint32_t stream, std::uint8_t flags, std::string_view header_block) {
  std::string payload;
  Put32(payload, stream);
  Put32(payload, 0);                       // no associated stream
  payload += std::string_view("\0\0", 2);  // highest priority, no credential slot
  payload += header_block;
  return ControlFrame(Type::kSynStream, flags, payload);
}

std::string SynReply(std::uint32_t stream, std::string_view header_block) {
  std::string payload;
  Put32(payload, stream);
  payload += header_block;
  return ControlFrame(Type::kSynReply, 0, payload);
}

namespace {
std::string TwoNumbers(Type type, std::uint32_t first, std::uint32_t second) {
  std::string payload;
  Put32(payload, first);
  Put32(payload, second);
  return ControlFrame(type, 0, payload);
}
}  // namespace

std::string RstStream(std::uint32_t stream, RstCode code) {
  return TwoNumbers(Type::kRstStream, stream, static_cast<std::uint32_t>(code));
}

std::string Ping(std::uint32_t id) {
  std::string payload;
  Put32(payload, id);
  return ControlFrame(Type::kPing, 0, payload);
}

std::string GoAway(std::uint32_t last_stream, std::uint32_t code) {
  return TwoNumbers(Type::kGoAway, last_stream, code);
}

std::string WindowUpdate(std::uint32_t stream, std::uint32_t delta) {
  return TwoNumbers(Type::kWindowUpdate, stream, delta);
}

std::string Settings(std::uint32_t id, std::uint32_t value) {
  std::string payload;
  Put32(payload, 1);
  Put32(payload, id & kLow24);
  Put32(payload, value);
  return ControlFrame(Type::kSettings, 0, payload);
}

}  // namespace crisp::rund::streaming::spdy
