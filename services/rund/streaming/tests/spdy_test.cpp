#include "services/rund/streaming/spdy.h"

#include <catch2/catch.hpp>
#include <map>
#include <vector>

#include "services/rund/streaming/tests/fake_wire.h"

namespace crisp::rund::streaming::spdy {
namespace {

/// A connection, and what its client sees.
struct Rig {
  Rig() {
    connection->Begin({.on_stream =
                           [this](const StreamPtr& stream, const Headers& named) {
                             streams.push_back(stream);
                             names.push_back(Find(named, "streamtype"));
                           },
                       .on_closed = [this](const Status& why) { closed = why.ToString(); }});
  }
  void Open(std::uint32_t id, const std::string& type) {
    wire->Come(SynStream(id, 0, headers.Write({{"streamtype", type}})));
  }
  /// Bytes of the data frames sent so far, by stream.
  std::map<std::uint32_t, std::size_t> DataSent() const {
    std::map<std::uint32_t, std::size_t> sizes;
    FrameReader reader({.on_control = [](const Control&) { return Status::Ok(); },
                        .on_data =
                            [&sizes](std::uint32_t id, std::string_view piece) {
                              sizes[id] += piece.size();
                              return Status::Ok();
                            },
                        .on_data_end = [](std::uint32_t, std::uint8_t) { return Status::Ok(); }});
    CHECK(reader.Feed(wire->All()).ok());
    return sizes;
  }
  std::vector<std::pair<Type, std::uint32_t>> Controls() const {
    std::vector<std::pair<Type, std::uint32_t>> all;
    FrameReader reader({.on_control =
                            [&all](const Control& control) {
                              all.emplace_back(control.type, Get32(control.payload, 0));
                              return Status::Ok();
                            },
                        .on_data = [](std::uint32_t, std::string_view) { return Status::Ok(); },
                        .on_data_end = [](std::uint32_t, std::uint8_t) { return Status::Ok(); }});
    CHECK(reader.Feed(wire->All()).ok());
    return all;
  }

  std::shared_ptr<FakeWire> wire = std::make_shared<FakeWire>();
  std::shared_ptr<SpdyConnection> connection = std::make_shared<SpdyConnection>(wire);
  HeaderWriter headers;
  std::vector<StreamPtr> streams;
  std::vector<std::string> names;
  std::string closed;
};

using Controls = std::vector<std::pair<Type, std::uint32_t>>;

}  // namespace

TEST_CASE("A stream is answered, its data comes, also what came before anybody listened") {
  Rig rig;
  rig.Open(1, "error");
  rig.Open(3, "stdin");
  CHECK(rig.names == std::vector<std::string>{"error", "stdin"});
  CHECK(rig.Controls() == Controls{{Type::kSynReply, 1}, {Type::kSynReply, 3}});
  rig.wire->Come(DataFrame(3, 0, "early") + DataFrame(3, kFlagFin, ""));
  std::string got;
  bool ended = false;
  rig.streams[1]->Listen({.on_data = [&got](std::string_view bytes) { got += bytes; },
                          .on_end = [&ended] { ended = true; },
                          .on_room = nullptr,
                          .on_gone = nullptr});
  CHECK(got == "early");
  CHECK(ended);
}

TEST_CASE("Windows open as bytes are used, of the stream and of the connection") {
  Rig rig;
  rig.Open(1, "stdin");
  rig.streams[0]->Listen({.on_data = [](std::string_view) {},
                          .on_end = nullptr,
                          .on_room = nullptr,
                          .on_gone = nullptr});
  rig.wire->Come(DataFrame(1, 0, std::string(40'000, 'x')));
  rig.wire->sent.clear();
  CHECK(rig.Controls().empty());
  rig.streams[0]->Took(40'000);
  CHECK(rig.Controls() == Controls{{Type::kWindowUpdate, 0}, {Type::kWindowUpdate, 1}});
}

TEST_CASE("A client that knows no windows is not read while somebody is behind") {
  Rig rig;
  rig.Open(1, "stdin");
  rig.streams[0]->Listen({.on_data = [](std::string_view) {},
                          .on_end = nullptr,
                          .on_room = nullptr,
                          .on_gone = nullptr});
  rig.wire->Come(DataFrame(1, 0, std::string(200'000, 'x')));
  CHECK(rig.wire->paused);
  rig.streams[0]->Took(200'000);
  CHECK_FALSE(rig.wire->paused);
  // Gone with its stream.
  rig.wire->Come(DataFrame(1, 0, std::string(200'000, 'x')));
  CHECK(rig.wire->paused);
  rig.streams[0]->Reset();
  CHECK_FALSE(rig.wire->paused);
}

TEST_CASE("A client's windows count once it shows that it has some") {
  Rig rig;
  rig.Open(1, "stdout");
  rig.streams[0]->Send(std::string(100'000, 'x'));
  CHECK(rig.DataSent()[1] == 100'000);
  Rig strict;
  strict.wire->Come(Settings(kSettingInitialWindow, 1000));
  strict.Open(1, "stdout");
  int room_calls = 0;
  strict.streams[0]->Listen({.on_data = nullptr,
                             .on_end = nullptr,
                             .on_room = [&room_calls] { ++room_calls; },
                             .on_gone = nullptr});
  CHECK(strict.streams[0]->Room() == 1000);
  strict.streams[0]->Send(std::string(1500, 'x'));
  CHECK(strict.DataSent()[1] == 1000);
  CHECK(strict.streams[0]->Room() == 0);
  strict.streams[0]->End();
  strict.connection->Finish();
  CHECK_FALSE(strict.wire->finished);
  strict.wire->Come(WindowUpdate(1, 600));
  CHECK(strict.DataSent()[1] == 1500);
  CHECK(strict.wire->finished);
}

TEST_CASE("Pings are answered, resets are told, a broken connection is the end of every stream") {
  Rig rig;
  rig.Open(1, "a");
  rig.Open(3, "b");
  int gone = 0;
  for (const StreamPtr& stream : rig.streams) {
    stream->Listen({.on_data = nullptr, .on_end = nullptr, .on_room = nullptr, .on_gone = [&gone] {
                      ++gone;
                    }});
  }
  rig.wire->sent.clear();
  rig.wire->Come(Ping(7) + Ping(8) + RstStream(1, RstCode::kCancel));
  CHECK(rig.Controls() == Controls{{Type::kPing, 7}});
  CHECK(gone == 1);
  rig.connection->Abort(Unavailable("cut"));
  CHECK(gone == 2);
  CHECK(rig.closed == "UNAVAILABLE: cut");
}

TEST_CASE("Nonsense ends the connection, data for nobody does not") {
  Rig rig;
  rig.Open(5, "a");
  rig.wire->Come(DataFrame(9, 0, "x"));
  CHECK(rig.Controls().back() == std::pair{Type::kRstStream, std::uint32_t{9}});
  CHECK(rig.closed.empty());
  rig.Open(3, "b");
  CHECK_FALSE(rig.closed.empty());
}

TEST_CASE("A client that asks and never reads is cut off") {
  Rig rig;
  for (int i = 0; i < 200'000 && rig.closed.empty(); ++i) rig.wire->Come(Ping(1));
  CHECK(rig.closed.find("does not read") != std::string::npos);
  CHECK(rig.wire->waiting < 2'000'000);
}

}  // namespace crisp::rund::streaming::spdy
