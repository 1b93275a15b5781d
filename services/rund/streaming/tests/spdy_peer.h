#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "services/rund/streaming/spdy_frames.h"
#include "services/rund/streaming/spdy_headers.h"
#include "services/rund/streaming/tests/fake_wire.h"

namespace crisp::rund::streaming {

/// What a SPDY client at the other end of a FakeWire sees and does.
class SpdyPeer {
 public:
  struct Seen {
    std::map<std::uint32_t, std::string> data;
    std::set<std::uint32_t> fins;
    std::map<std::uint32_t, spdy::RstCode> resets;
    std::map<std::uint32_t, std::uint32_t> windows;  // what was given back, by stream
    std::vector<std::pair<spdy::Type, std::uint32_t>> controls;
  };

  void Open(std::uint32_t id, const spdy::Headers& named) const {
    wire->Come(spdy::SynStream(id, 0, headers->Write(named)));
  }
  void Send(std::uint32_t id, std::string_view bytes, bool fin = false) const {
    wire->Come(spdy::DataFrame(id, fin ? spdy::kFlagFin : 0, bytes));
  }
  /// All that has come so far.
  Seen See() const {
    Seen seen;
    spdy::FrameReader reader({.on_control =
                                  [&seen](const spdy::Control& control) {
                                    const std::uint32_t first = spdy::Get32(control.payload, 0);
                                    seen.controls.emplace_back(control.type, first);
                                    if (control.type == spdy::Type::kRstStream) {
                                      seen.resets[first] = static_cast<spdy::RstCode>(
                                          spdy::Get32(control.payload, 4));
                                    }
                                    if (control.type == spdy::Type::kWindowUpdate) {
                                      seen.windows[first] += spdy::Get32(control.payload, 4);
                                    }
                                    return Status::Ok();
                                  },
                              .on_data =
                                  [&seen](std::uint32_t id, std::string_view piece) {
                                    seen.data[id] += piece;
                                    return Status::Ok();
                                  },
                              .on_data_end =
                                  [&seen](std::uint32_t id, std::uint8_t flags) {
                                    if ((flags & spdy::kFlagFin) != 0) seen.fins.insert(id);
                                    return Status::Ok();
                                  }});
    static_cast<void>(reader.Feed(wire->All()).ok());
    return seen;
  }

  std::shared_ptr<FakeWire> wire = std::make_shared<FakeWire>();
  std::unique_ptr<spdy::HeaderWriter> headers = std::make_unique<spdy::HeaderWriter>();
};

}  // namespace crisp::rund::streaming
