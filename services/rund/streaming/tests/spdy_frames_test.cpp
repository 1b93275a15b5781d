#include "services/rund/streaming/spdy_frames.h"

#include <catch2/catch.hpp>
#include <vector>

#include "libs/digest/digest.h"
#include "services/rund/streaming/spdy_headers.h"

namespace crisp::rund::streaming::spdy {
namespace {

/// What a reader tells, one line each.
std::vector<std::string> Cut(const std::string& bytes, std::size_t step,
                             Status* outcome = nullptr) {
  std::vector<std::string> lines;
  std::string data;
  FrameReader reader({.on_control =
                          [&lines](const Control& control) {
                            lines.push_back(fmt::format("control {} flags {} size {}",
                                                        static_cast<int>(control.type),
                                                        control.flags, control.payload.size()));
                            return Status::Ok();
                          },
                      .on_data =
                          [&data](std::uint32_t, std::string_view piece) {
                            data += piece;
                            return Status::Ok();
                          },
                      .on_data_end =
                          [&lines, &data](std::uint32_t stream, std::uint8_t flags) {
                            lines.push_back(
                                fmt::format("data {} '{}' flags {}", stream, data, flags));
                            data.clear();
                            return Status::Ok();
                          }});
  for (std::size_t at = 0; at < bytes.size(); at += step) {
    const Status fed = reader.Feed(std::string_view(bytes).substr(at, step));
    if (outcome != nullptr) *outcome = fed;
    if (!fed.ok()) break;
  }
  return lines;
}

}  // namespace

TEST_CASE("Frames are told apart, in whatever pieces they come") {
  const std::string bytes = Ping(5) + DataFrame(3, 0, "hello") + DataFrame(3, kFlagFin, "") +
                            RstStream(7, RstCode::kCancel) + WindowUpdate(0, 9) + GoAway(3, 0) +
                            SynStream(9, kFlagFin, "block") + Settings(kSettingInitialWindow, 1);
  const std::vector<std::string> expected = {
      "control 6 flags 0 size 4",  "data 3 'hello' flags 0",   "data 3 '' flags 1",
      "control 3 flags 0 size 8",  "control 9 flags 0 size 8", "control 7 flags 0 size 8",
      "control 1 flags 1 size 15", "control 4 flags 0 size 12"};
  for (const std::size_t step : {1UL, 2UL, 3UL, 7UL, 8UL, 9UL, 1000UL}) {
    CHECK(Cut(bytes, step) == expected);
  }
}

TEST_CASE("The bytes of frames are those of the specification") {
  CHECK(Ping(1) == std::string("\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01", 12));
  CHECK(DataFrame(1, kFlagFin, "ab") == std::string("\x00\x00\x00\x01\x01\x00\x00\x02"
                                                    "ab",
                                                    10));
  CHECK(RstStream(2, RstCode::kRefusedStream) ==
        std::string("\x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x00\x02\x00\x00\x00\x03", 16));
}

TEST_CASE("What is no SPDY/3 is refused") {
  Status outcome;
  Cut("GET / HTTP/1.1\r\n\r\n", 100, &outcome);
  CHECK(outcome.ok());  // a data frame of stream 'GET ': the connection refuses it, not the reader
  Cut(std::string("\x80\x02\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01", 12), 100, &outcome);
  CHECK(outcome.code() == Code::kInvalidArgument);
  Cut(std::string("\x80\x03\x00\x01\x00\xff\xff\xff", 8), 100, &outcome);
  CHECK(outcome.code() == Code::kInvalidArgument);
}

TEST_CASE("The dictionary is that of the specification") {
  CHECK(Dictionary().size() == 1423);
  CHECK(digest::Sha256Hex(Dictionary()) ==
        "51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02");
}

TEST_CASE("Header blocks survive the way, one after the other over one stream") {
  HeaderWriter writer;
  HeaderReader reader;
  const std::vector<Headers> blocks = {
      {{"streamtype", "error"}},
      {},
      {{"streamtype", "data"}, {"port", "8080"}, {"requestid", "1"}},
      {{"x", std::string(20000, 'y')}},
      {{"streamtype", "error"}, {"empty", ""}}};
  for (const Headers& headers : blocks) {
    const auto read = reader.Read(writer.Write(headers));
    REQUIRE(read.ok());
    CHECK(*read == headers);
  }
  CHECK(Find({{"streamType", "data"}}, "streamtype") == "data");
  CHECK(Find({{"streamType", "data"}}, "port").empty());
}

TEST_CASE("Header blocks that are none are refused, and do not cost memory") {
  CHECK(HeaderReader().Read("rubbish").code() == Code::kInvalidArgument);
  HeaderWriter writer;
  const std::string bomb = writer.Write({{"x", std::string(std::size_t{10} << 20U, 'x')}});
  CHECK(bomb.size() < 100'000);
  CHECK(HeaderReader().Read(bomb).code() == Code::kInvalidArgument);
  std::string plain;
  Put32(plain, 0xffffffff);
  CHECK(ParseHeaders(plain).code() == Code::kInvalidArgument);
  CHECK(ParseHeaders("").code() == Code::kInvalidArgument);
  plain.clear();
  Put32(plain, 1);
  Put32(plain, 0xfffffff0);
  CHECK(ParseHeaders(plain + "abc").code() == Code::kInvalidArgument);
}

}  // namespace crisp::rund::streaming::spdy
