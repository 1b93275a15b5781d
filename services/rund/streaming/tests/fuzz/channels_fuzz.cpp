// Messages of a WebSocket, in whatever pieces.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "services/rund/streaming/channels.h"
#include "services/rund/streaming/session.h"

using namespace crisp::rund::streaming;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size < 2) return 0;
  const ChannelProtocol protocol{bytes[0] % 5 + 1, (bytes[0] & 0x80U) != 0};
  const std::size_t step = bytes[1] % 16U + 1U;
  const std::string_view all(reinterpret_cast<const char*>(bytes) + 2, size - 2);
  // What came, by channel; nothing: it was refused.
  const auto read =
      [&](std::size_t piece_size) -> std::optional<std::map<std::size_t, std::string>> {
    std::map<std::size_t, std::string> got;
    ChannelReader reader(
        protocol,
        {.on_data = [&got](std::size_t channel, std::string_view piece) { got[channel] += piece; },
         .on_close = [&got](std::size_t channel) { got[channel] += "close"; }});
    for (std::size_t at = 0; at < all.size(); at += piece_size) {
      const std::string_view piece = all.substr(at, piece_size);
      if (!reader.Feed(piece, at + piece.size() == all.size()).ok()) return std::nullopt;
    }
    return got;
  };
  // Whole or in pieces: at least the verdict is the same.
  if (read(all.size() + 1).has_value() != read(step).has_value()) std::abort();
  static_cast<void>(ParseSize(all));
  static_cast<void>(ParseChannelProtocol(all));
  return 0;
}
