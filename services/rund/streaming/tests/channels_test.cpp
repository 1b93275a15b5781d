#include "services/rund/streaming/channels.h"

#include <catch2/catch.hpp>
#include <vector>

#include "services/rund/streaming/session.h"
#include "services/rund/streaming/tests/fake_wire.h"

namespace crisp::rund::streaming {
namespace {

std::vector<std::string> Read(ChannelProtocol protocol, const std::string& message,
                              std::size_t step, Status* outcome = nullptr) {
  std::string data;
  std::vector<std::string> lines;
  ChannelReader reader(protocol, {.on_data =
                                      [&data](std::size_t channel, std::string_view bytes) {
                                        data += fmt::format("{}", channel);
                                        data += ":";
                                        data += bytes;
                                      },
                                  .on_close =
                                      [&lines](std::size_t channel) {
                                        lines.push_back(fmt::format("close {}", channel));
                                      }});
  for (std::size_t at = 0; at < message.size(); at += step) {
    const std::string_view piece = std::string_view(message).substr(at, step);
    const Status fed = reader.Feed(piece, at + piece.size() == message.size());
    if (outcome != nullptr) *outcome = fed;
  }
  if (!data.empty()) lines.insert(lines.begin(), data);
  return lines;
}

}  // namespace

TEST_CASE("Names of channel protocols") {
  CHECK(ParseChannelProtocol("")->version == 1);
  CHECK(ParseChannelProtocol("channel.k8s.io")->version == 1);
  CHECK(ParseChannelProtocol("v4.channel.k8s.io")->version == 4);
  CHECK(ParseChannelProtocol("v5.channel.k8s.io")->version == 5);
  CHECK(ParseChannelProtocol("v4.base64.channel.k8s.io")->base64);
  CHECK(ParseChannelProtocol("base64.channel.k8s.io")->base64);
  CHECK_FALSE(ParseChannelProtocol("v6.channel.k8s.io"));
  CHECK_FALSE(ParseChannelProtocol("v4.channel.k8s.io.evil"));
  CHECK_FALSE(ParseChannelProtocol("v4."));
}

TEST_CASE("Messages are taken apart, in whatever pieces they come") {
  CHECK(Read({4, false}, std::string("\0hello", 6), 100) == std::vector<std::string>{"0:hello"});
  CHECK(Read({4, false}, std::string("\0abc", 4), 1) == std::vector<std::string>{"0:a0:b0:c"});
  CHECK(Read({4, false}, std::string("\0", 1), 1).empty());
  CHECK(Read({5, false}, std::string("\xff\0", 2), 2) == std::vector<std::string>{"close 0"});
  CHECK(Read({4, false}, std::string("\xff\0", 2), 2) ==
        std::vector<std::string>{std::string("255:\0", 5)});
  CHECK(Read({4, true}, "0aGVsbG8=", 100) == std::vector<std::string>{"0:hello"});
  CHECK(Read({4, true}, "0aGVsbG8=", 3) == std::vector<std::string>{"0:hel0:lo"});
  Status outcome;
  Read({4, true}, "0?", 100, &outcome);
  CHECK(outcome.code() == Code::kInvalidArgument);
  Read({4, true}, "xaGVsbG8=", 100, &outcome);
  CHECK(outcome.code() == Code::kInvalidArgument);
}

TEST_CASE("Padding of base64 ends a message, whatever the pieces that it comes in") {
  for (const std::size_t step : {1U, 3U, 4U, 5U, 100U}) {
    INFO(step);
    Status outcome;
    Read({4, true}, "0AA==AAAA", step, &outcome);
    CHECK(outcome.code() == Code::kInvalidArgument);
    CHECK(Read({4, true}, "0AAAAAA==", step, &outcome) != std::vector<std::string>{});
    CHECK(outcome.ok());
  }
}

TEST_CASE("Each channel has its turn when there is room") {
  const auto wire = std::make_shared<FakeWire>();
  const auto connection = std::make_shared<ChannelConnection>(wire, ChannelProtocol{4, false});
  const auto streams = connection->Begin(3, nullptr);
  std::vector<std::size_t> sent(3);
  for (const std::size_t i : {1U, 2U}) {
    streams[i]->Discard([&sent, i, to = streams[i].get()] {
      // As much as goes, every time.
      while (to->Room() > 0) {
        to->Send(std::string(to->Room(), 'x'));
        sent[i] += 1;
      }
    });
  }
  for (int i = 0; i < 10; ++i) wire->Drain();
  CHECK(sent[1] > 0);
  CHECK(sent[1] == sent[2]);
}

TEST_CASE("What is written is what is read") {
  for (const bool base64 : {false, true}) {
    const std::string message = ChannelMessage({4, base64}, 2, "some bytes");
    CHECK(Read({4, base64}, message, 100) == std::vector<std::string>{"2:some bytes"});
  }
}

TEST_CASE("While one channel's reader is behind the client is not read") {
  const auto wire = std::make_shared<FakeWire>();
  const auto connection = std::make_shared<ChannelConnection>(wire, ChannelProtocol{4, false});
  const auto streams = connection->Begin(5, nullptr);
  std::size_t got = 0;
  streams[0]->Listen({.on_data = [&got](std::string_view bytes) { got += bytes.size(); },
                      .on_end = nullptr,
                      .on_room = nullptr,
                      .on_gone = nullptr});
  wire->Come(ChannelMessage({4, false}, 0, std::string(200'000, 'x')), true);
  CHECK(got == 200'000);
  CHECK(wire->paused);
  streams[0]->Took(100'000);
  CHECK_FALSE(wire->paused);
}

TEST_CASE("The end of a session in JSON from version 4 on, in words before") {
  CHECK(ErrorStreamText({}, 4) == R"({"metadata":{},"status":"Success"})");
  CHECK(ErrorStreamText({}, 3).empty());
  const std::string failed = ErrorStreamText({Status::Ok(), 42}, 5);
  CHECK(failed.find(R"("reason":"NonZeroExitCode")") != std::string::npos);
  CHECK(failed.find(R"({"message":"42","reason":"ExitCode"})") != std::string::npos);
  CHECK(ErrorStreamText({NotFound("no container x"), 0}, 4).find("no container x") !=
        std::string::npos);
  CHECK(ErrorStreamText({NotFound("no container x"), 0}, 1) == "no container x");
}

TEST_CASE("Sizes of terminals; nonsense is none") {
  CHECK(ParseSize(R"({"Width":80,"Height":24})")->width == 80);
  for (const char* text : {"", "{}", R"({"Width":0,"Height":24})", R"({"Width":-1,"Height":24})",
                           R"({"Width":80,"Height":70000})", R"({"Width":"80","Height":24})"}) {
    CHECK_FALSE(ParseSize(text));
  }
}

TEST_CASE("The first protocol of the client's that is known is agreed upon") {
  const Request exec = runtime::v1::ExecRequest();
  const Request forward = runtime::v1::PortForwardRequest();
  CHECK(Agree(exec, false, {"v5.channel.k8s.io", "v4.channel.k8s.io"})->name ==
        "v4.channel.k8s.io");
  CHECK(Agree(exec, true, {"v5.channel.k8s.io", "v4.channel.k8s.io"})->name == "v5.channel.k8s.io");
  CHECK(Agree(exec, false, {"channel.k8s.io"})->name == "channel.k8s.io");
  CHECK(Agree(exec, false, {})->name.empty());
  CHECK_FALSE(Agree(exec, false, {"v4.base64.channel.k8s.io"}).ok());
  CHECK(Agree(exec, false, {"portforward.k8s.io"}).code() == Code::kInvalidArgument);
  CHECK(Agree(forward, false, {"portforward.k8s.io"})->name == "portforward.k8s.io");
  CHECK(Agree(forward, true, {"SPDY/3.1+portforward.k8s.io"}).ok());
  CHECK_FALSE(Agree(exec, true, {"SPDY/3.1+portforward.k8s.io"}).ok());
}

TEST_CASE("A port-forward gets a protocol that has channels for all its ports, or none") {
  const auto [name, most] = GENERATE(table<std::string, int>({{"v4.channel.k8s.io", 127},
                                                              {"v5.channel.k8s.io", 127},
                                                              {"", 127},
                                                              {"v4.base64.channel.k8s.io", 5}}));
  const std::vector<std::string> offered =
      name.empty() ? std::vector<std::string>{} : std::vector<std::string>{name};
  runtime::v1::PortForwardRequest forward;
  for (int i = 0; i < most; ++i) forward.add_port(1000 + i);
  CHECK(Agree(forward, true, offered).ok());
  forward.add_port(80);
  const auto refused = Agree(forward, true, offered);
  CHECK(refused.code() == Code::kInvalidArgument);
  CHECK(refused.status().message() ==
        fmt::format("port: {} of them, and there are channels for {}", most + 1, most));
  // SPDY opens streams as it likes.
  CHECK(Agree(forward, false, {"portforward.k8s.io"}).ok());
  CHECK(Agree(forward, true, {"SPDY/3.1+portforward.k8s.io"}).ok());
}

}  // namespace crisp::rund::streaming
