#include "libs/http/server.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <future>

#include "libs/loop/loop.h"
#include "libs/os/files.h"
#include "libs/os/unique_fd.h"
#include "libs/testing/test_root.h"

using namespace std::chrono_literals;

namespace crisp::http {
namespace {

Result<ServerResponse> Get(loop::Loop& loop, const std::string& path, const std::string& target,
                           std::chrono::nanoseconds timeout = 10s) {
  std::promise<Result<ServerResponse>> answer;
  GetUnix(loop, path, target, timeout,
          [&answer](Result<ServerResponse> got) { answer.set_value(std::move(got)); });
  return answer.get_future().get();
}

/// Sends raw bytes to a port and reads until the server closes.
std::string Talk(std::uint16_t port, const std::string& bytes) {
  const os::UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  std::signal(SIGPIPE, SIG_IGN);  // as the daemons do: the server may close at half of it
  static_cast<void>(os::WriteAll(fd.get(), bytes, "socket").ok());
  return os::ReadAll(fd.get(), "socket").value_or("");
}

void Echo(const ServerRequest& request, const Respond& respond) {
  respond({.status = request.target == "/none" ? 404 : 200, .body = "you asked " + request.target});
}

}  // namespace

TEST_CASE("a GET over a unix socket is answered") {
  testing::TestRoot root;
  loop::Loop loop;
  loop.Start();
  auto server = Server::ListenUnix(loop, root / "s", 0600, &Echo);
  REQUIRE(server.ok());
  struct stat found {};
  REQUIRE(stat((root / "s").c_str(), &found) == 0);
  CHECK((found.st_mode & 0777U) == 0600U);
  const auto answer = Get(loop, root / "s", "/metrics?x=1");
  REQUIRE(answer.ok());
  CHECK(answer->status == 200);
  CHECK(answer->body == "you asked /metrics?x=1");
  CHECK(answer->content_type == "text/plain; charset=utf-8");
  CHECK(Get(loop, root / "s", "/none")->status == 404);
  CHECK(Server::ListenUnix(loop, root / "s", 0600, &Echo).code() == Code::kFailedPrecondition);
  server->reset();
  CHECK_FALSE(os::Exists(root / "s"));
  CHECK(Get(loop, root / "s", "/").code() == Code::kUnavailable);
}

TEST_CASE("an answer may come later, from another thread") {
  testing::TestRoot root;
  loop::Loop loop;
  loop.Start();
  std::thread later;
  auto server =
      Server::ListenUnix(loop, root / "s", 0600, [&](const ServerRequest&, Respond respond) {
        later = std::thread([respond = std::move(respond)] { respond({.body = "late"}); });
      });
  REQUIRE(server.ok());
  CHECK(Get(loop, root / "s", "/")->body == "late");
  later.join();
}

TEST_CASE("a server that never answers is a deadline") {
  testing::TestRoot root;
  loop::Loop loop;
  loop.Start();
  std::vector<Respond> kept;
  auto server = Server::ListenUnix(
      loop, root / "s", 0600,
      [&kept](const ServerRequest&, Respond r) { kept.push_back(std::move(r)); });
  REQUIRE(server.ok());
  CHECK(Get(loop, root / "s", "/", 20ms).code() == Code::kDeadlineExceeded);
}

TEST_CASE("a TCP server keeps connections, knows HEAD, refuses the rest") {
  loop::Loop loop;
  loop.Start();
  auto server = Server::ListenTcp(loop, "127.0.0.1:0", &Echo);
  REQUIRE(server.ok());
  const std::uint16_t port = (*server)->port();
  REQUIRE(port != 0);
  const std::string two = Talk(port,
                               "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
                               "GET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  CHECK(two.find("you asked /a") != std::string::npos);
  CHECK(two.find("you asked /b") != std::string::npos);
  const std::string head = Talk(port, "HEAD /abc HTTP/1.0\r\n\r\n");
  CHECK(head.find("Content-Length: 14") != std::string::npos);
  CHECK(head.find("you asked") == std::string::npos);
  CHECK(Talk(port, "DELETE / HTTP/1.0\r\n\r\n").find("405") != std::string::npos);
  CHECK(Talk(port, "nonsense\r\n\r\n").empty());
  CHECK(Talk(port, "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello").find("200") ==
        std::string::npos);
  CHECK(Talk(port, "GET / HTTP/1.1\r\nX: " + std::string(20'000, 'x') + "\r\n\r\n").empty());
}

TEST_CASE("a bad address is named") {
  loop::Loop loop;
  CHECK(Server::ListenTcp(loop, "127.0.0.1", &Echo).code() == Code::kInvalidArgument);
  CHECK(Server::ListenTcp(loop, "nowhere:80", &Echo).code() == Code::kInvalidArgument);
  CHECK(Server::ListenTcp(loop, "127.0.0.1:99999", &Echo).code() == Code::kInvalidArgument);
}

}  // namespace crisp::http
