#include "services/rund/streaming/attach_target.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <optional>

#include "services/rund/streaming/tests/driven_loop.h"
#include "services/rund/streaming/tests/fake_stream.h"

namespace crisp::rund::streaming {
namespace {

using std::chrono::milliseconds;

/// An attach, and the monitor at its other end.
struct Rig {
  explicit Rig(AttachedContainer container = {}, bool with_err = true) {
    int pair[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    container.socket.reset(pair[0]);
    monitor.reset(pair[1]);
    fcntl(monitor.get(), F_SETFL, O_NONBLOCK);
    target = std::make_shared<AttachTarget>(
        *loop, std::move(container),
        AttachTarget::Times{.patience = milliseconds(1), .quiet = milliseconds(1)});
    target->Begin({in, out, with_err ? err : nullptr},
                  [this](const Outcome& how) { outcome = how; });
  }
  ~Rig() {
    target->Close();
    loop.Settle();
  }
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  bool Write(const std::string& bytes, char tag = 2) const {
    const std::string packet = tag + bytes;
    return send(monitor.get(), packet.data(), packet.size(), MSG_NOSIGNAL) > 0;
  }
  /// So much that only a reader lets it all through.
  std::size_t Flood() {
    std::size_t sent = 0;
    CHECK(loop.Until([&] {
      if (Write(std::string(8000, 'x'))) sent += 8000;
      return sent >= 4'000'000;
    }));
    loop.Settle();
    return sent;
  }

  DrivenLoop loop;
  os::UniqueFd monitor;
  std::shared_ptr<FakeStream> in = std::make_shared<FakeStream>();
  std::shared_ptr<FakeStream> out = std::make_shared<FakeStream>();
  std::shared_ptr<FakeStream> err = std::make_shared<FakeStream>();
  std::shared_ptr<AttachTarget> target;
  std::optional<Outcome> outcome;
};

}  // namespace

TEST_CASE("An attach: output by stream, input, the monitor's end") {
  Rig rig({.socket = {}, .control = {}, .takes_stdin = true});
  CHECK(rig.Write("o"));
  CHECK(rig.Write("e", 3));
  CHECK(rig.loop.Until([&] { return rig.out->sent == "o" && rig.err->sent == "e"; }));
  rig.in->Come("hello");
  char got[16];
  CHECK(read(rig.monitor.get(), got, sizeof got) == 5);
  CHECK(rig.in->took == 5);
  rig.monitor.reset();
  CHECK(rig.loop.Until([&] { return rig.outcome.has_value(); }));
  CHECK(rig.outcome->status.ok());
}

TEST_CASE("A client that takes nothing keeps nobody waiting, and is told where it can be") {
  Rig rig;
  rig.out->room = 0;
  const std::size_t sent = rig.Flood();
  rig.out->Open(SIZE_MAX / 4);
  CHECK(rig.loop.Until([&] { return !rig.err->sent.empty(); }));
  CHECK(rig.err->sent.find("bytes left out here") != std::string::npos);
  CHECK(rig.out->total < sent);
  CHECK(rig.out->sent.find("crisp") == std::string::npos);
}

TEST_CASE("A program that reads the output alone is told at the end what it has missed") {
  Rig rig({}, /*with_err=*/false);
  rig.out->room = 0;
  rig.Flood();
  rig.out->Open(SIZE_MAX / 4);
  rig.monitor.reset();
  CHECK(rig.loop.Until([&] { return rig.outcome.has_value(); }));
  CHECK(rig.outcome->status.code() == Code::kDataLoss);
  CHECK(rig.out->sent.find("crisp") == std::string::npos);
}

TEST_CASE("The end of a client's stdin ends an attach only where there is a stdin") {
  const bool takes_stdin = GENERATE(true, false);
  Rig rig({.socket = {}, .control = {}, .takes_stdin = takes_stdin});
  rig.in->ComeEnd();
  if (takes_stdin) {
    CHECK(rig.loop.Until([&] { return rig.outcome.has_value(); }));
    return;
  }
  // Longer than it is quiet with one.
  bool later = false;
  const auto timer = (*rig.loop).After(milliseconds(20), [&later] { later = true; });
  CHECK(rig.loop.Until([&later] { return later; }));
  CHECK_FALSE(rig.outcome);
  CHECK(rig.Write("still"));
  CHECK(rig.loop.Until([&] { return rig.out->sent == "still"; }));
}

}  // namespace crisp::rund::streaming
