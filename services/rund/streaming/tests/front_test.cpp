#include "services/rund/streaming/front.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <optional>

#include "libs/os/unique_fd.h"
#include "services/rund/streaming/tests/driven_loop.h"

namespace crisp::rund::streaming {
namespace {

using std::chrono::milliseconds;
constexpr std::size_t kMegabyte = std::size_t{1} << 20U;
constexpr const char* kUpgrade =
    "POST /exec/t HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";

/// A client that never blocks.
class Client {
 public:
  explicit Client(const std::string& url, int receive_buffer = 0)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_buffer > 0) {
      setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    std::uint16_t port = 0;
    std::from_chars(url.data() + url.rfind(':') + 1, url.data() + url.size(), port);
    address.sin_port = htons(port);
    REQUIRE(connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
  }
  void Send(std::string_view text) const {
    REQUIRE(send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(text.size()));
  }
  /// Whether anybody is there to hear it or not.
  void SendLate() const { static_cast<void>(send(fd_.get(), "late", 4, MSG_NOSIGNAL) > 0); }
  /// What is there, at most `limit`; `got` holds all so far. False: the end.
  bool Read(std::size_t limit = kMegabyte) {
    std::string some(limit, '\0');
    const ssize_t n = recv(fd_.get(), some.data(), some.size(), 0);
    if (n > 0) got.append(some, 0, static_cast<std::size_t>(n));
    return n > 0 || (n < 0 && errno == EAGAIN);
  }

  std::string got;

 private:
  os::UniqueFd fd_;
};

struct Rig {
  explicit Rig(const EndTimes& times = {}) {
    std::signal(SIGPIPE, SIG_IGN);  // as the daemons do
    front =
        Front::Listen(
            *loop, "127.0.0.1:0", nullptr,
            [this](const UpgradeRequest& request) {
              requests.push_back(request.path);
              UpgradeAnswer answer;
              answer.status = request.spdy || request.websocket ? 101 : 400;
              answer.text = "an upgrade is needed";
              answer.on_wire = [this](std::shared_ptr<Wire> made) {
                wire = std::move(made);
                wire->Begin({.on_piece = [this](std::string_view bytes, bool) { came += bytes; },
                             .on_room = nullptr,
                             .on_closed = [this](const Status& why) { closed = why; }});
              };
              return answer;
            },
            times)
            .value();
  }
  ~Rig() {
    if (wire) wire->Abort(Unavailable("the test is over"));
    front.reset();
    loop.Settle();
  }
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  /// A client whose connection is a wire.
  std::unique_ptr<Client> Connect(int receive_buffer = 0) {
    auto client = std::make_unique<Client>(front->url(), receive_buffer);
    client->Send(kUpgrade);
    CHECK(loop.Until([&] { return wire != nullptr && client->Read() && !client->got.empty(); }));
    CHECK(client->got.starts_with("HTTP/1.1 101 "));
    client->got.clear();
    return client;
  }

  DrivenLoop loop;
  std::unique_ptr<Front> front;
  std::vector<std::string> requests;
  std::shared_ptr<Wire> wire;
  std::string came;
  std::optional<Status> closed;
};

}  // namespace

TEST_CASE("What is no upgrade is refused in words") {
  const auto [request, status] = GENERATE(table<std::string, std::string>(
      {{"GET /exec/t HTTP/1.1\r\nHost: x\r\n\r\n", "400 Bad Request"},
       {"DELETE /exec/t HTTP/1.1\r\nHost: x\r\n\r\n", "405 Method Not Allowed"},
       {"POST /exec/t HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", "400 Bad Request"}}));
  Rig rig;
  Client client(rig.front->url());
  client.Send(request);
  CHECK(rig.loop.Until([&] { return !client.Read(); }));
  CHECK(client.got.starts_with("HTTP/1.1 " + status));
}

TEST_CASE("A slow client gets all that was sent before the end, and may still send") {
  // All that is waited for here is over in no time.
  Rig rig({.drain = std::chrono::hours(1), .linger = milliseconds(1), .step = milliseconds(1)});
  const auto client = rig.Connect();
  std::size_t sent = 0;
  while (rig.wire->queued() < kMegabyte) {
    rig.wire->Send(std::string(kMegabyte / 16, 'x'));
    sent += kMegabyte / 16;
    rig.loop.Settle();
  }
  rig.wire->Finish();
  bool passed = false;
  std::size_t reads = 0;
  CHECK(rig.loop.Until([&] {
    if (++reads % 16 == 0 && client->got.size() < sent) client->SendLate();
    const bool open = client->Read(kMegabyte / 8);
    // After the last write is into the socket: long enough for it to be closed.
    if (rig.wire->queued() == 0 && !passed) {
      passed = true;
      for (int i = 0; i < 20; ++i) {
        bool turned = false;
        const auto timer = (*rig.loop).After(milliseconds(1), [&turned] { turned = true; });
        CHECK(rig.loop.Until([&turned] { return turned; }));
        client->SendLate();
      }
    }
    return !open;
  }));
  // It may end as a reset once all was taken.
  CHECK(client->got.size() == sent);
  CHECK(rig.came.empty());
  CHECK(rig.loop.Until([&] { return rig.closed.has_value(); }));
}

TEST_CASE("A client that takes nothing of the rest is cut off") {
  Rig rig({.drain = milliseconds(20), .linger = std::chrono::hours(1), .step = milliseconds(1)});
  const auto client = rig.Connect(4096);
  for (int i = 0; i < 16; ++i) rig.wire->Send(std::string(kMegabyte, 'x'));
  rig.wire->Finish();
  CHECK(rig.loop.Until([&] { return rig.closed.has_value(); }));
  CHECK(rig.closed->message().find("did not take the rest") != std::string::npos);
}

TEST_CASE("A client that has all and does not close is closed") {
  Rig rig({.drain = std::chrono::hours(1), .linger = milliseconds(5), .step = milliseconds(1)});
  const auto client = rig.Connect();
  rig.wire->Send("bye");
  rig.wire->Finish();
  CHECK(rig.loop.Until([&] { return rig.closed.has_value(); }));
  CHECK(rig.closed->message().find("did not close") != std::string::npos);
  CHECK(rig.loop.Until([&] { return !client->Read(); }));
  CHECK(client->got == "bye");
}

TEST_CASE("The end of a wire has the reason that was given for it") {
  Rig rig;
  const auto client = rig.Connect();
  client->Send("x");
  CHECK(rig.loop.Until([&] { return rig.came == "x"; }));  // and it reads on
  rig.wire->Abort(ResourceExhausted("too much"));
  rig.wire->Abort(Unavailable("later"));
  CHECK(rig.loop.Until([&] { return rig.closed.has_value(); }));
  CHECK(rig.closed->message() == "too much");
}

TEST_CASE("A peer that closes is an end in good order, also while nothing is read") {
  Rig rig;
  auto client = rig.Connect();
  rig.loop.Settle();  // it reads
  const bool paused = GENERATE(true, false);
  if (paused) {
    rig.wire->Pause(true);
    client->Send("x");  // what was begun to be read
    CHECK(rig.loop.Until([&] { return rig.came == "x"; }));
  }
  client.reset();
  CHECK(rig.loop.Until([&] {
    rig.wire->CheckPeer();
    return rig.closed.has_value();
  }));
  CHECK(rig.closed->ok() != paused);
}

TEST_CASE("Connections that are still HTTP outlive the front") {
  Rig rig;
  Client client(rig.front->url());
  client.Send("POST /exec/t HTTP/1.1\r\n");
  rig.loop.Settle();
  rig.front.reset();
  client.Send("Host: x\r\n\r\n");
  CHECK(rig.loop.Until([&] { return !client.Read(); }));
  CHECK(client.got.starts_with("HTTP/1.1 400"));
}

TEST_CASE("Without a descriptor to spare it waits, and then goes on") {
  Rig rig;
  Client client(rig.front->url());
  client.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  const os::UniqueFd lowest(open("/dev/null", O_RDONLY | O_CLOEXEC));
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(lowest.get());
  REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
  rig.loop.Settle();  // comes back only when nothing is tried over and over
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(rig.requests.empty());
  CHECK(rig.loop.Until([&] { return !client.Read(); }));
  CHECK(client.got.starts_with("HTTP/1.1 400"));
}

TEST_CASE("Addresses are an IP and a port") {
  CHECK(CheckAddress("127.0.0.1:0").ok());
  CHECK(CheckAddress("[::1]:10250").ok());
  for (const char* wrong :
       {"", "127.0.0.1", "localhost:1", "127.0.0.1:", "127.0.0.1:65536", ":1"}) {
    INFO(wrong);
    CHECK(CheckAddress(wrong).code() == Code::kInvalidArgument);
  }
}

}  // namespace crisp::rund::streaming
