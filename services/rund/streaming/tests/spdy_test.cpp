#include "services/rund/streaming/spdy.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <vector>

#include "services/rund/streaming/tests/spdy_peer.h"

namespace crisp::rund::streaming::spdy {
namespace {

/// A connection, and its client.
struct Rig : SpdyPeer {
  explicit Rig(const Spill& spill = {})
      : connection(std::make_shared<SpdyConnection>(wire, spill)) {
    connection->Begin({.on_stream =
                           [this](const StreamPtr& stream, const Headers& named) {
                             streams.push_back(stream);
                             names.push_back(Find(named, "streamtype"));
                           },
                       .on_closed = [this](const Status& why) { closed = why.ToString(); }});
  }
  void Open(std::uint32_t id, const std::string& type) const {
    SpdyPeer::Open(id, {{"streamtype", type}});
  }
  std::vector<std::pair<Type, std::uint32_t>> Controls() const { return See().controls; }
  /// Somebody who takes nothing so far.
  void Hold(std::size_t stream) const {
    streams[stream]->Listen({.on_data = [](std::string_view) {},
                             .on_end = nullptr,
                             .on_room = nullptr,
                             .on_gone = nullptr});
  }

  std::shared_ptr<SpdyConnection> connection;
  std::vector<StreamPtr> streams;
  std::vector<std::string> names;
  std::string closed;
};

using Controls = std::vector<std::pair<Type, std::uint32_t>>;
using std::chrono::seconds;

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
  rig.Hold(0);
  rig.wire->Come(DataFrame(1, 0, std::string(40'000, 'x')));
  rig.wire->sent.clear();
  CHECK(rig.Controls().empty());
  rig.streams[0]->Took(40'000);
  CHECK(rig.Controls() == Controls{{Type::kWindowUpdate, 0}, {Type::kWindowUpdate, 1}});
}

TEST_CASE("A client that knows no windows is not read while somebody is behind") {
  Rig rig;
  rig.Open(1, "stdin");
  rig.Hold(0);
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
  CHECK(rig.See().data[1].size() == 100'000);
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
  CHECK(strict.See().data[1].size() == 1000);
  CHECK(strict.streams[0]->Room() == 0);
  strict.streams[0]->End();
  strict.connection->Finish();
  CHECK_FALSE(strict.wire->finished);
  strict.wire->Come(WindowUpdate(1, 600));
  CHECK(strict.See().data[1].size() == 1500);
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
  rig.wire->Close();
  CHECK(gone == 2);
  CHECK(rig.closed == "UNAVAILABLE: cut");
}

TEST_CASE("Nonsense ends the connection, which is told, data for nobody does not") {
  Rig rig;
  rig.Open(5, "a");
  rig.wire->Come(DataFrame(9, 0, "x"));
  CHECK(rig.Controls().back() == std::pair{Type::kRstStream, std::uint32_t{9}});
  CHECK_FALSE(rig.wire->finished);
  rig.Open(3, "b");
  // It goes out before the end: nothing is cut off.
  CHECK(rig.Controls().back() == std::pair{Type::kGoAway, std::uint32_t{5}});
  CHECK(rig.wire->finished);
  CHECK_FALSE(rig.wire->aborted);
  rig.wire->Close();
  CHECK(rig.closed.find("number 3 after 5") != std::string::npos);
}

TEST_CASE("Of several initial windows the last one counts") {
  Rig rig;
  rig.Open(1, "a");
  std::string payload;
  Put32(payload, 3);
  for (const std::uint32_t window : {100'000U, 5U, 700U}) {
    Put32(payload, kSettingInitialWindow);
    Put32(payload, window);
  }
  rig.wire->Come(ControlFrame(Type::kSettings, 0, payload));
  CHECK(rig.streams[0]->Room() == 700);
}

TEST_CASE("What a stream that was reset has not used comes back to the connection's window") {
  const bool by_client = GENERATE(true, false);
  Rig rig;
  rig.Open(1, "a");
  rig.Open(3, "b");
  rig.Hold(0);
  rig.Send(1, std::string(60'000, 'x'));
  CHECK(rig.See().windows[0] == 0);
  if (by_client) {
    rig.wire->Come(RstStream(1, RstCode::kCancel));
  } else {
    rig.streams[0]->Reset();
  }
  CHECK(rig.See().windows[0] == 60'000);
  // Nor is it counted twice.
  rig.streams[0]->Took(60'000);
  CHECK(rig.See().windows[0] == 60'000);
}

TEST_CASE(
    "What one stream's reader does not take is put aside for the others; then it is given up") {
  Rig rig({.stream = 1'000'000, .all = 1'500'000, .stall = seconds(30)});
  rig.Open(1, "stuck");
  rig.Open(3, "well");
  rig.Hold(0);
  std::size_t got = 0;
  rig.streams[1]->Listen({.on_data =
                              [&](std::string_view bytes) {
                                got += bytes.size();
                                rig.streams[1]->Took(bytes.size());
                              },
                          .on_end = nullptr,
                          .on_room = nullptr,
                          .on_gone = nullptr});
  rig.Send(1, std::string(900'000, 'x'));
  CHECK_FALSE(rig.wire->paused);
  rig.Send(3, "past it");
  CHECK(got == 7);
  rig.Send(1, std::string(200'000, 'x'));
  CHECK(rig.wire->paused);
  SteadyTime now{};
  rig.connection->Check(now);
  rig.connection->Check(now += seconds(29));
  CHECK(rig.See().resets.empty());
  // It moves: the clock starts again.
  rig.streams[0]->Took(1);
  rig.connection->Check(now += seconds(29));
  rig.connection->Check(now += seconds(29));
  CHECK(rig.See().resets.empty());
  rig.connection->Check(now += seconds(1));
  CHECK(rig.See().resets[1] == RstCode::kFlowControlError);
  CHECK(rig.streams[0]->gone());
  CHECK_FALSE(rig.streams[1]->gone());
  CHECK_FALSE(rig.wire->paused);
}

TEST_CASE("All that is put aside is bounded too, and without a limit of time nobody is given up") {
  Rig rig({.stream = 1'000'000, .all = 1'500'000});
  for (const std::uint32_t id : {1U, 3U}) rig.Open(id, "stuck");
  rig.Hold(0);
  rig.Hold(1);
  rig.Send(1, std::string(900'000, 'x'));
  CHECK_FALSE(rig.wire->paused);
  rig.Send(3, std::string(900'000, 'x'));
  CHECK(rig.wire->paused);
  SteadyTime now{};
  for (int i = 0; i < 100; ++i) rig.connection->Check(now += seconds(30));
  CHECK(rig.See().resets.empty());
}

TEST_CASE("A client that does not open its windows for the rest is cut off in the end") {
  Rig rig;
  rig.wire->Come(Settings(kSettingInitialWindow, 10));
  rig.Open(1, "out");
  rig.streams[0]->Send(std::string(100, 'x'));
  rig.streams[0]->End();
  rig.connection->Finish();
  SteadyTime now{};
  rig.connection->Check(now);
  rig.connection->Check(now += seconds(29));
  // As long as it takes something it has time.
  rig.wire->Come(WindowUpdate(1, 10));
  rig.connection->Check(now += seconds(29));
  rig.connection->Check(now += seconds(29));
  CHECK_FALSE(rig.wire->aborted);
  rig.connection->Check(now += seconds(1));
  REQUIRE(rig.wire->aborted);
  CHECK(rig.wire->aborted->code() == Code::kDeadlineExceeded);
}

TEST_CASE("The end does not wait for a stream that the client resets") {
  Rig rig;
  rig.wire->Come(Settings(kSettingInitialWindow, 10));
  rig.Open(1, "out");
  rig.streams[0]->Send(std::string(100, 'x'));
  rig.connection->Finish();
  CHECK_FALSE(rig.wire->finished);
  rig.wire->Come(RstStream(1, RstCode::kCancel));
  CHECK(rig.wire->finished);
}

TEST_CASE("A client that asks and never reads is cut off") {
  Rig rig;
  for (int i = 0; i < 200'000 && !rig.wire->aborted; ++i) rig.wire->Come(Ping(1));
  REQUIRE(rig.wire->aborted);
  CHECK(rig.wire->aborted->message().find("does not read") != std::string::npos);
  CHECK(rig.wire->waiting < 2'000'000);
}

}  // namespace crisp::rund::streaming::spdy
