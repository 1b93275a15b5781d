#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <string>

#include "libs/os/pipe.h"
#include "services/rund/streaming/session.h"
#include "services/rund/streaming/tests/driven_loop.h"
#include "services/rund/streaming/tests/spdy_peer.h"

namespace crisp::rund::streaming {
namespace {

using std::chrono::seconds;
constexpr std::size_t kMegabyte = std::size_t{1} << 20U;

/// A port of this machine's loopback in place of a pod's.
class Listener {
 public:
  Listener() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    listen(fd_.get(), 16);
    socklen_t size = sizeof address;
    getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  int port() const { return port_; }
  os::UniqueFd Accept() const {
    return os::UniqueFd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  }

 private:
  os::UniqueFd fd_;
  int port_ = 0;
};

struct Rig : SpdyPeer {
  explicit Rig(const Agreed& agreed = {"portforward.k8s.io", false},
               const std::vector<int>& ports = {}) {
    std::signal(SIGPIPE, SIG_IGN);  // as the daemons do
    runtime::v1::PortForwardRequest request;
    request.set_pod_sandbox_id("pod");
    for (const int port : ports) request.add_port(port);
    session = MakeSession(env, request, agreed, wire);
    session->Begin([this] { over = true; });
  }
  ~Rig() {
    wire->Close();
    pool.Stop();
    pool.WaitEnded(seconds(10));
    loop.Settle();
  }
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  /// Streams `id` (errors) and `id` + 2 (data).
  void OpenPair(std::uint32_t id, const std::string& port) {
    const std::string request = std::to_string(id);
    Open(id, {{"streamtype", "error"}, {"port", port}, {"requestid", request}});
    Open(id + 2, {{"streamtype", "data"}, {"port", port}, {"requestid", request}});
  }
  os::UniqueFd Accepted(const Listener& listener) {
    os::UniqueFd connection;
    REQUIRE(loop.Until([&] {
      connection = listener.Accept();
      return connection.valid();
    }));
    return connection;
  }
  /// A new connection works, there and back.
  void CheckAlive(std::uint32_t id, const Listener& listener) {
    OpenPair(id, std::to_string(listener.port()));
    const os::UniqueFd server = Accepted(listener);
    Send(id + 2, "ping");
    CHECK(AwaitRead(server.get(), "ping"));
    CHECK(write(server.get(), "pong", 4) == 4);
    CHECK(loop.Until([&] { return See().data[id + 2] == "pong"; }));
  }
  bool AwaitRead(int fd, const std::string& wanted) {
    std::string got;
    return loop.Until([&] {
      std::string some(wanted.size(), '\0');
      const ssize_t n = read(fd, some.data(), some.size());
      if (n > 0) got += some.substr(0, static_cast<std::size_t>(n));
      return got == wanted;
    });
  }

  DrivenLoop loop;
  work::Pool pool;
  Backend backend{
      .exec = nullptr,
      .attach = nullptr,
      .sockets = [](const CallContext&, const std::string&) -> Result<PodSockets> {
        PodSockets sockets;
        sockets.v4.reset(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        return sockets;
      }};
  Env env{*loop, pool, backend};
  SessionPtr session;
  bool over = false;
};

}  // namespace

TEST_CASE("A server that dies while it is written to is told as a reset, and costs no other") {
  Rig rig;
  const Listener listener;
  rig.OpenPair(1, std::to_string(listener.port()));
  os::UniqueFd server = rig.Accepted(listener);
  // More than its socket takes.
  const std::string block(kMegabyte, 'x');
  while (!rig.wire->paused) rig.Send(3, block);
  rig.loop.Settle();
  server.reset();  // with bytes unread: a reset
  CHECK(rig.loop.Until([&] { return rig.See().resets.contains(3); }));
  const auto seen = rig.See();
  CHECK_FALSE(seen.fins.contains(3));
  CHECK(seen.fins.contains(1));
  CHECK_FALSE(seen.data.contains(1));
  // What was under way still comes.
  rig.Send(3, block);
  CHECK_FALSE(rig.wire->paused);
  rig.CheckAlive(11, listener);
}

TEST_CASE("Input that is left when the server goes ends the connection, though both have ended") {
  Rig rig;
  const Listener listener;
  rig.OpenPair(1, std::to_string(listener.port()));
  os::UniqueFd server = rig.Accepted(listener);
  shutdown(server.get(), SHUT_WR);
  CHECK(rig.loop.Until([&] { return rig.See().fins.contains(3); }));
  CHECK_FALSE(rig.See().fins.contains(1));
  const std::string block(kMegabyte, 'x');
  while (!rig.wire->paused) rig.Send(3, block);
  rig.Send(3, "", true);
  server.reset();
  CHECK(rig.loop.Until([&] { return rig.See().fins.contains(1); }));
  CHECK_FALSE(rig.wire->paused);
  rig.CheckAlive(11, listener);
}

TEST_CASE("A server that accepts and does not read is given up; until then the others go on") {
  Rig rig;
  const Listener listener;
  rig.OpenPair(1, std::to_string(listener.port()));
  const os::UniqueFd stuck = rig.Accepted(listener);
  // What its socket takes, then what is put aside.
  std::uint32_t next = 11;
  for (int i = 0; i < 256 && !rig.wire->paused; ++i) {
    rig.CheckAlive(next, listener);
    next += 4;
    rig.Send(3, std::string(kMegabyte / 4, 'x'));
    rig.loop.Settle();
  }
  REQUIRE(rig.wire->paused);
  SteadyTime now{};
  rig.session->connection().Check(now);
  CHECK(rig.See().resets.empty());
  rig.session->connection().Check(now + seconds(30));
  CHECK(rig.See().resets.contains(3));
  CHECK_FALSE(rig.wire->paused);
  rig.CheckAlive(next, listener);
}

TEST_CASE("Bytes for a port that is none, or for too many, are in nobody's way") {
  Rig rig;
  const Listener listener;
  rig.OpenPair(1, "no port");
  for (int i = 0; i < 40; ++i) rig.Send(3, std::string(kMegabyte / 8, 'x'));
  CHECK(rig.See().data[1].find("only TCP") != std::string::npos);
  CHECK_FALSE(rig.wire->paused);
  rig.CheckAlive(11, listener);
  // A name of its own is no place to keep things.
  rig.Open(21, {{"streamtype", "error"}, {"requestid", std::string(1000, 'x')}, {"port", "1"}});
  CHECK(rig.See().resets.contains(21));
}

TEST_CASE("A port on which nobody listens costs its own connection only") {
  Rig rig;
  const Listener listener;
  const int free_port = Listener().port();  // nobody listens there any more
  rig.OpenPair(1, std::to_string(free_port));
  rig.Send(3, "for nobody");
  CHECK(rig.loop.Until([&] { return rig.See().resets.contains(3); }));
  const auto seen = rig.See();
  CHECK(seen.fins.contains(1));
  // A word there ends all connections of the clients in use.
  CHECK_FALSE(seen.data.contains(1));
  CHECK_FALSE(seen.data.contains(3));
  rig.CheckAlive(11, listener);
}

TEST_CASE("A pod that is gone is told in words") {
  Rig rig;
  rig.backend.sockets = [](const CallContext&, const std::string& id) -> Result<PodSockets> {
    return NotFound("no pod {}", id);
  };
  rig.OpenPair(1, "80");
  CHECK(rig.loop.Until([&] { return rig.See().fins.contains(1); }));
  CHECK(rig.See().data[1] == "no pod pod");
}

TEST_CASE("One connection too many is reset, and those that are there stay") {
  Rig rig;
  const Listener listener;
  rig.CheckAlive(1, listener);
  rig.backend.sockets = [](const CallContext&, const std::string&) -> Result<PodSockets> {
    return NotFound("no pod");
  };
  std::uint32_t id = 5;
  // None of them ends: nobody runs the loop.
  for (; !rig.wire->aborted && rig.See().resets.empty() && id < 5000; id += 4) {
    rig.OpenPair(id, std::to_string(listener.port()));
  }
  const auto seen = rig.See();
  CHECK(id == 1 + 4 * 1001);
  CHECK(seen.resets.contains(id - 4 + 2));
  CHECK(seen.fins.contains(id - 4));
  CHECK_FALSE(seen.data.contains(id - 4));
}

TEST_CASE("Over channels nobody answers in words, on the port's own channel") {
  const Listener second;
  const int free_port = Listener().port();
  const ChannelProtocol protocol{4, false};
  Rig rig({"v4.channel.k8s.io", true}, {free_port, second.port()});
  const os::UniqueFd two = rig.Accepted(second);
  CHECK(rig.loop.Until([&] {
    return rig.wire->All().find("nobody answers on port " + std::to_string(free_port)) !=
           std::string::npos;
  }));
  rig.wire->Come(ChannelMessage(protocol, 2, "still"), true);
  CHECK(rig.AwaitRead(two.get(), "still"));
}

TEST_CASE("A client that sends on over a channel that has ended is in nobody's way") {
  const Listener first;
  const Listener second;
  const ChannelProtocol protocol{4, false};
  Rig rig({"v4.channel.k8s.io", true}, {first.port(), second.port()});
  const os::UniqueFd one = rig.Accepted(first);
  const os::UniqueFd two = rig.Accepted(second);
  shutdown(one.get(), SHUT_WR);  // the end of both directions here
  char byte = 0;
  CHECK(rig.loop.Until([&] { return read(one.get(), &byte, 1) == 0; }));
  for (int i = 0; i < 40; ++i) {
    rig.wire->Come(ChannelMessage(protocol, 0, std::string(kMegabyte / 8, 'x')), true);
  }
  CHECK_FALSE(rig.wire->paused);
  rig.wire->Come(ChannelMessage(protocol, 2, "still"), true);
  CHECK(rig.AwaitRead(two.get(), "still"));
}

TEST_CASE("A port-forward that is stopped says why, on every connection's error stream") {
  Rig rig;
  const Listener listener;
  rig.OpenPair(1, std::to_string(listener.port()));
  const os::UniqueFd server = rig.Accepted(listener);
  rig.session->Stop(Unavailable("rund is stopping"));
  const auto seen = rig.See();
  CHECK(seen.data.at(1) == "rund is stopping");
  CHECK(seen.fins.contains(1));
  CHECK(seen.resets.contains(3));
  CHECK(rig.wire->finished);
  rig.wire->Close();
  CHECK(rig.over);
}

TEST_CASE("Half a pair is given up after a while") {
  Rig rig;
  rig.env.creation_timeout = std::chrono::milliseconds(1);
  rig.Open(1, {{"streamtype", "error"}, {"requestid", "1"}, {"port", "1"}});
  CHECK(rig.loop.Until([&] { return rig.See().resets.contains(1); }));
}

TEST_CASE("A server's half close is the client's, and bytes still go the other way") {
  Rig rig;
  const Listener listener;
  rig.OpenPair(1, std::to_string(listener.port()));
  const os::UniqueFd server = rig.Accepted(listener);
  REQUIRE(write(server.get(), "bye", 3) == 3);
  shutdown(server.get(), SHUT_WR);
  CHECK(rig.loop.Until([&] { return rig.See().fins.contains(3); }));
  CHECK(rig.See().data[3] == "bye");
  rig.Send(3, "after", true);
  CHECK(rig.AwaitRead(server.get(), "after"));
  CHECK(rig.loop.Until([&] { return rig.See().fins.contains(1); }));
  CHECK(rig.See().resets.empty());
}

}  // namespace crisp::rund::streaming
