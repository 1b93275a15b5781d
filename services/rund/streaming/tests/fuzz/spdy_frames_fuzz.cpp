// Whatever bytes a client sends over SPDY: the whole connection, with its streams used.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "services/rund/streaming/spdy.h"
#include "services/rund/streaming/tests/fake_wire.h"

using namespace crisp::rund::streaming;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const auto wire = std::make_shared<FakeWire>();
  const auto connection = std::make_shared<spdy::SpdyConnection>(wire);
  std::vector<StreamPtr> streams;
  connection->Begin({.on_stream =
                         [&streams](const StreamPtr& stream, const spdy::Headers&) {
                           streams.push_back(stream);
                           auto* raw = stream.get();
                           stream->Listen({.on_data =
                                               [raw](std::string_view piece) {
                                                 raw->Took(piece.size());
                                                 if (raw->Room() > 0) raw->Send(piece);
                                               },
                                           .on_end = [raw] { raw->End(); },
                                           .on_room = nullptr,
                                           .on_gone = nullptr});
                         },
                     .on_closed = nullptr});
  const std::string_view all(reinterpret_cast<const char*>(bytes), size);
  // In pieces whose size the first byte chooses.
  const std::size_t step = size > 0 ? bytes[0] % 16U + 1U : 1U;
  for (std::size_t at = 0; at < size; at += step) wire->Come(all.substr(at, step));
  connection->Finish();
  return 0;
}
