// Whatever bytes a client sends over SPDY: the whole connection, with its streams used, now at
// once, now later, now not at all.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string_view>
#include <vector>

#include "services/rund/streaming/spdy.h"
#include "services/rund/streaming/tests/fake_wire.h"

using namespace crisp::rund::streaming;

namespace {

struct User {
  std::vector<StreamPtr> streams;
  std::map<Stream*, std::size_t> owed;  // bytes not yet taken
  unsigned mode = 0;

  void Use(const StreamPtr& stream) {
    streams.push_back(stream);
    auto* raw = stream.get();
    // One in four has nobody who listens.
    if ((mode & 3U) == 3U && streams.size() % 4 == 0) return;
    stream->Listen({.on_data =
                        [this, raw](std::string_view piece) {
                          if ((mode & 4U) != 0) {
                            owed[raw] += piece.size();
                          } else {
                            raw->Took(piece.size());
                          }
                          if (raw->Room() > 0) raw->Send(piece);
                          if ((mode & 8U) != 0 && piece.size() % 7 == 3) raw->Reset();
                        },
                    .on_end = [raw] { raw->End(); },
                    .on_room = [raw] { raw->Send("room"); },
                    .on_gone = nullptr});
  }
  void TakeAll() {
    for (auto& [stream, bytes] : owed) stream->Took(std::exchange(bytes, 0));
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size < 2) return 0;
  const auto wire = std::make_shared<FakeWire>();
  const auto connection = std::make_shared<spdy::SpdyConnection>(
      wire, spdy::Spill{.stream = 200, .all = 500, .stall = std::chrono::seconds(30)});
  User user;
  user.mode = bytes[1];
  connection->Begin(
      {.on_stream = [&user](const StreamPtr& stream, const spdy::Headers&) { user.Use(stream); },
       .on_closed = nullptr});
  const std::string_view all(reinterpret_cast<const char*>(bytes) + 2, size - 2);
  // In pieces whose size the first byte chooses.
  const std::size_t step = bytes[0] % 16U + 1U;
  crisp::SteadyTime now{};
  for (std::size_t at = 0; at < all.size(); at += step) {
    wire->Come(all.substr(at, step));
    if ((user.mode & 16U) != 0 && at % 64 < step) wire->Drain();
    if ((user.mode & 32U) != 0 && at % 128 < step) user.TakeAll();
    if ((user.mode & 64U) != 0 && at % 32 < step) connection->Check(now += std::chrono::seconds(7));
  }
  user.TakeAll();
  // Nobody keeps the client waiting for ever, but one that nobody listens to.
  if ((user.mode & 3U) != 3U && wire->paused && !wire->finished && !wire->aborted) std::abort();
  connection->Finish();
  wire->Drain();
  connection->Check(now += std::chrono::seconds(60));
  connection->Check(now += std::chrono::seconds(60));
  if (!wire->finished && !wire->aborted) std::abort();
  wire->Close();
  return 0;
}
