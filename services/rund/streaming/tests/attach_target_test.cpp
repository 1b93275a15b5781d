#include "services/rund/streaming/attach_target.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <optional>
#include <string>
#include <vector>

#include "services/rund/streaming/tests/driven_loop.h"
#include "services/rund/streaming/tests/fake_stream.h"

namespace crisp::rund::streaming {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

/// What the container is like.
struct Kind {
  bool tty = false;
  bool takes_stdin = false;
  bool stdin_once = false;
};

/// A client's attach.
struct Attach {
  Attach(AttachHub::Share& share, bool with_in, bool with_err)
      : target(std::make_shared<AttachTarget>(share, "c")) {
    target->Begin({with_in ? in : nullptr, out, with_err ? err : nullptr},
                  [this](const Outcome& how) { outcome = how; });
  }
  ~Attach() { target->Close(); }
  Attach(const Attach&) = delete;
  Attach& operator=(const Attach&) = delete;

  std::shared_ptr<FakeStream> in = std::make_shared<FakeStream>();
  std::shared_ptr<FakeStream> out = std::make_shared<FakeStream>();
  std::shared_ptr<FakeStream> err = std::make_shared<FakeStream>();
  std::shared_ptr<AttachTarget> target;
  std::optional<Outcome> outcome;
};

/// A container's monitor, and those that are attached to it.
struct Rig {
  explicit Rig(const Kind& kind = {}, std::chrono::nanoseconds patience = milliseconds(0),
               const OutletLimits& limits = {.always = 16'000, .one = 64'000, .all = 1'000'000})
      : share{.loop = *loop,
              .pool = pool,
              .backend = backend,
              .times = {.patience = patience, .quiet = milliseconds(1)},
              .outlets = {.limits = limits}} {
    backend.attach = [this, kind](const CallContext&,
                                  const std::string& id) -> Result<AttachedContainer> {
      if (id != "c") return NotFound("no container {}", id);
      if (!failure.ok()) return failure;
      int pair[2];
      if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return Status::Errno(errno, "socketpair");
      }
      monitor.reset(pair[1]);
      fcntl(monitor.get(), F_SETFL, O_NONBLOCK);
      ++connections;
      return AttachedContainer{.socket = os::UniqueFd(pair[0]),
                               .control = {},
                               .tty = kind.tty,
                               .takes_stdin = kind.takes_stdin,
                               .stdin_once = kind.stdin_once};
    };
  }
  ~Rig() {
    loop.Settle();
    share.hubs.clear();
    pool.Stop();
    pool.WaitEnded(std::chrono::seconds(10));
  }
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  /// One that is attached.
  std::unique_ptr<Attach> Join(bool with_in = false, bool with_err = true) {
    auto made = std::make_unique<Attach>(share, with_in, with_err);
    CHECK(loop.Until([&] {
      const auto hub = share.hubs.find("c");
      return made->outcome || (hub != share.hubs.end() && hub->second->container() != nullptr);
    }));
    return made;
  }
  bool Write(const std::string& bytes, char tag = 2) const {
    const std::string packet = tag + bytes;
    return send(monitor.get(), packet.data(), packet.size(), MSG_NOSIGNAL) > 0;
  }
  /// Whatever it takes; how much that was.
  std::size_t Flood(std::size_t bytes = 400'000) {
    std::size_t sent = 0;
    CHECK(loop.Until([&] {
      if (Write(std::string(8000, 'x'))) sent += 8000;
      return sent >= bytes;
    }));
    loop.Settle();
    return sent;
  }
  /// What came for the container's stdin: nullopt = nothing yet, "" = its end.
  std::optional<std::string> Input() const {
    std::string got(64 << 10, '\0');
    const ssize_t n = recv(monitor.get(), got.data(), got.size(), 0);
    if (n < 0) return std::nullopt;
    got.resize(static_cast<std::size_t>(n));
    return got;
  }
  /// Long enough for whatever would happen by itself.
  void LetTimePass() {
    bool later = false;
    const auto timer = (*loop).After(milliseconds(20), [&later] { later = true; });
    CHECK(loop.Until([&later] { return later; }));
  }

  DrivenLoop loop;
  work::Pool pool;
  Backend backend;
  AttachHub::Share share;
  os::UniqueFd monitor;  // its end of the last connection
  std::atomic<int> connections{0};
  Status failure;
};

}  // namespace

TEST_CASE("An attach: output by stream, input, the monitor's end") {
  Rig rig({.takes_stdin = true});
  const auto client = std::make_unique<Attach>(rig.share, true, true);
  client->in->Come("early ");
  CHECK(rig.loop.Until([&] { return client->in->took == 6; }));
  CHECK(rig.Write("o"));
  CHECK(rig.Write("e", 3));
  CHECK(rig.loop.Until([&] { return client->out->sent == "o" && client->err->sent == "e"; }));
  client->in->Come("hello");
  CHECK(rig.Input() == "early ");
  CHECK(rig.Input() == "hello");
  CHECK(client->in->took == 11);
  rig.monitor.reset();
  CHECK(rig.loop.Until([&] { return client->outcome.has_value(); }));
  CHECK(client->outcome->status.ok());
  CHECK(rig.share.hubs.empty());
}

TEST_CASE("An attach that fails says why, and the next one tries again") {
  Rig rig;
  rig.failure = FailedPrecondition("container c is not running");
  const auto client = rig.Join();
  REQUIRE(client->outcome);
  CHECK(client->outcome->status.code() == Code::kFailedPrecondition);
  rig.failure = Status::Ok();
  const auto second = rig.Join();
  CHECK(rig.Write("o"));
  CHECK(rig.loop.Until([&] { return second->out->sent == "o"; }));
}

TEST_CASE("All that are attached share one connection, which stays while the container is quiet") {
  Rig rig;
  auto first = std::make_unique<Attach>(rig.share, false, true);
  auto second = rig.Join();
  CHECK(rig.Write("to both"));
  CHECK(rig.loop.Until(
      [&] { return first->out->sent == "to both" && second->out->sent == "to both"; }));
  for (int i = 0; i < 10; ++i) {
    first.reset();
    second.reset();
    rig.loop.Settle();
    second = rig.Join();
  }
  CHECK(rig.connections == 1);
  second.reset();
  // Nobody wants this; then nobody is there.
  CHECK(rig.Write("to none"));
  CHECK(rig.loop.Until([&] { return rig.share.hubs.empty(); }));
  const auto late = rig.Join();
  CHECK(rig.connections == 2);
  CHECK(rig.Write("to one"));
  CHECK(rig.loop.Until([&] { return late->out->sent == "to one"; }));
}

TEST_CASE("With stdin_once the container's stdin ends with that of the first client that has one") {
  Rig rig({.takes_stdin = true, .stdin_once = true});
  const auto typist = rig.Join(/*with_in=*/true);
  auto reader = rig.Join();
  reader.reset();
  typist->in->Come("on");
  CHECK(rig.Input() == "on");
  CHECK_FALSE(rig.Input());
  const bool gone = GENERATE(false, true);
  if (gone) {
    typist->target->Close();
  } else {
    typist->in->ComeEnd();
  }
  CHECK(rig.loop.Until([&] { return rig.Input() == ""; }));
  // There is output until the container ends, also when nobody wanted some of it.
  if (gone) CHECK(rig.Write("to none"));
  rig.loop.Settle();
  const auto late = rig.Join(/*with_in=*/true);
  CHECK(rig.connections == 1);
  // It goes nowhere, and is in nobody's way.
  late->in->Come("more");
  CHECK(rig.loop.Until([&] { return late->in->took == 4; }));
  CHECK(rig.Write("bye"));
  CHECK(rig.loop.Until([&] { return late->out->sent == "bye"; }));
  CHECK(typist->out->sent == (gone ? "" : "bye"));
}

TEST_CASE("Without stdin_once no client ends the container's stdin") {
  Rig rig({.takes_stdin = true});
  auto first = rig.Join(/*with_in=*/true);
  auto second = rig.Join(/*with_in=*/true);
  first->in->Come("one");
  first->in->ComeEnd();
  CHECK(rig.loop.Until([&] { return first->outcome.has_value(); }));
  first.reset();
  second->in->Come("two");
  CHECK(rig.Input() == "one");
  CHECK(rig.Input() == "two");
  second.reset();
  rig.LetTimePass();
  CHECK_FALSE(rig.Input());
}

TEST_CASE("Input that the container does not take waits, and the client with it") {
  Rig rig({.takes_stdin = true, .stdin_once = true});
  const auto first = rig.Join(/*with_in=*/true);
  const auto second = rig.Join(/*with_in=*/true);
  const std::string much(4'000'000, 'i');
  first->in->Come(much);
  second->in->Come(much);
  rig.loop.Settle();
  CHECK(first->in->took < much.size());
  CHECK(second->in->took < much.size());
  std::size_t came = 0;
  CHECK(rig.loop.Until([&] {
    came += rig.Input().value_or("").size();
    return came == 2 * much.size();
  }));
  CHECK(rig.loop.Until(
      [&] { return first->in->took == much.size() && second->in->took == much.size(); }));
}

TEST_CASE("A client that takes nothing keeps nobody waiting, and is told where it can be") {
  Rig rig;
  const auto stuck = rig.Join();
  const auto reader = rig.Join();
  stuck->out->room = 0;
  const std::size_t sent = rig.Flood();
  CHECK(rig.loop.Until([&] { return reader->out->total == sent; }));
  CHECK(reader->err->sent.empty());
  CHECK(stuck->out->total == 0);
  stuck->out->Open(SIZE_MAX / 4);
  CHECK(rig.loop.Until([&] { return !stuck->err->sent.empty(); }));
  CHECK(stuck->err->sent.find(std::to_string(sent - stuck->out->total) + " bytes left out here") !=
        std::string::npos);
  CHECK(stuck->out->sent.find("crisp") == std::string::npos);
  // What was kept for it came before.
  CHECK(stuck->out->total >= 64'000);
  CHECK(rig.share.outlets.waiting == 0);
  CHECK(rig.Write("on"));
  CHECK(rig.loop.Until([&] { return stuck->out->sent.ends_with("on"); }));
}

TEST_CASE("A terminal's client that was too slow is told so on the terminal") {
  Rig rig({.tty = true});
  const auto stuck = rig.Join(false, /*with_err=*/false);
  stuck->out->room = 0;
  rig.Flood();
  stuck->out->Open(SIZE_MAX / 4);
  CHECK(
      rig.loop.Until([&] { return stuck->out->sent.find("left out here") != std::string::npos; }));
}

TEST_CASE("A program that reads the output alone is told at the end what it has missed") {
  Rig rig;
  const auto client = rig.Join(false, /*with_err=*/false);
  client->out->room = 0;
  rig.Flood();
  client->out->Open(SIZE_MAX / 4);
  rig.monitor.reset();
  CHECK(rig.loop.Until([&] { return client->outcome.has_value(); }));
  CHECK(client->outcome->status.code() == Code::kDataLoss);
  CHECK(client->out->sent.find("crisp") == std::string::npos);
}

TEST_CASE("What waits for a client comes before the end of the container") {
  Rig rig;
  const auto client = rig.Join();
  client->out->room = 1;
  for (const char* word : {"a", "b", "c"}) CHECK(rig.Write(word));
  rig.monitor.reset();
  CHECK(rig.loop.Until([&] { return client->outcome.has_value(); }));
  CHECK(client->outcome->status.ok());
  CHECK(client->out->sent == "abc");
}

TEST_CASE("Many clients that take nothing keep little each, and what they kept goes with them") {
  Rig rig({}, milliseconds(0), {.always = 8'000, .one = 64'000, .all = 100'000});
  std::vector<std::unique_ptr<Attach>> stuck;
  for (int i = 0; i < 20; ++i) {
    stuck.push_back(rig.Join());
    stuck.back()->out->room = 0;
  }
  rig.Flood();
  CHECK(rig.share.outlets.waiting >= 100'000);
  CHECK(rig.share.outlets.waiting < 300'000);
  stuck.clear();
  CHECK(rig.share.outlets.waiting == 0);
}

TEST_CASE("For a client that is behind the container is slowed down, never stopped") {
  Rig rig({}, hours(1), {.always = 1, .one = SIZE_MAX, .all = SIZE_MAX});
  const auto slow = rig.Join();
  slow->out->room = 0;
  // More than the socket holds: it goes on being read.
  const std::size_t sent = rig.Flood(600'000);
  // Once it is no longer behind it goes at full speed, and nothing is missing.
  slow->out->Open(SIZE_MAX / 4);
  CHECK(rig.loop.Until([&] { return slow->out->total == sent; }));
  CHECK(slow->err->sent.empty());
}

TEST_CASE("The end of a client's stdin ends an attach only where there is a stdin") {
  const bool takes_stdin = GENERATE(true, false);
  Rig rig({.takes_stdin = takes_stdin});
  const auto client = rig.Join(/*with_in=*/true);
  client->in->ComeEnd();
  if (takes_stdin) {
    CHECK(rig.loop.Until([&] { return client->outcome.has_value(); }));
    return;
  }
  rig.LetTimePass();
  CHECK_FALSE(client->outcome);
  CHECK(rig.Write("still"));
  CHECK(rig.loop.Until([&] { return client->out->sent == "still"; }));
}

}  // namespace crisp::rund::streaming
