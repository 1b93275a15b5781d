#include "libs/http/client.h"

#include <catch2/catch.hpp>

#include "libs/http/tests/raw_server.h"

namespace crisp::http {
namespace {

using std::chrono::seconds;
using testing::RawServer;

Request Get(const RawServer& server, const std::string& target) {
  return {.url = *Url::Parse("http://" + server.HostPort() + target)};
}
CallContext Soon() { return CallContext::Background(seconds(10)); }

TEST_CASE("Bodies come whole, by length, in chunks or up to the end of the connection") {
  const std::string text(300'000, 'x');
  RawServer server([&text](const std::string& head) -> RawServer::Answer {
    if (head.starts_with("GET /length")) return {RawServer::Ok(text)};
    if (head.starts_with("GET /chunks"))
      return {
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"};
    return {"HTTP/1.1 200 OK\r\n\r\nto the end", true};
  });
  Client client;
  CHECK((*client.Send(Soon(), Get(server, "/length"))->ReadAll(Soon(), MiB(1)) == text));
  CHECK(*client.Send(Soon(), Get(server, "/chunks"))->ReadAll(Soon(), MiB(1)) == "hello!");
  CHECK(client.Send(Soon(), Get(server, "/length"))->Header("content-length") == "300000");
  CHECK(*client.Send(Soon(), Get(server, "/end"))->ReadAll(Soon(), MiB(1)) == "to the end");
}

TEST_CASE("A connection is used again after a body was read to its end") {
  RawServer server([](const std::string&) -> RawServer::Answer { return {RawServer::Ok("a")}; });
  Client client;
  for (int i = 0; i < 5; ++i)
    CHECK(*client.Send(Soon(), Get(server, "/"))->ReadAll(Soon(), MiB(1)) == "a");
  CHECK(server.connection_count() == 1);
  { const auto unread = client.Send(Soon(), Get(server, "/")); }
  CHECK(client.Send(Soon(), Get(server, "/")).ok());
  CHECK(server.connection_count() == 2);
}

TEST_CASE("Answers ahead of the final one are passed over") {
  const std::string interim =
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n";
  RawServer server([&interim](const std::string& head) -> RawServer::Answer {
    if (head.starts_with("GET /switch"))
      return {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"};
    if (head.starts_with("GET /ever")) {
      std::string all;
      for (int i = 0; i < 20; ++i) all += interim;
      return {all};
    }
    return {interim + RawServer::Ok("final")};
  });
  Client client;
  for (int i = 0; i < 3; ++i) {
    auto answer = client.Send(Soon(), Get(server, "/"));
    REQUIRE(answer.ok());
    CHECK(answer->status() == 200);
    CHECK(*answer->ReadAll(Soon(), KiB(4)) == "final");
  }
  CHECK(server.connection_count() == 1);
  CHECK(client.Send(Soon(), Get(server, "/switch")).code() == Code::kUnavailable);
  CHECK(client.Send(Soon(), Get(server, "/ever")).code() == Code::kUnavailable);
}

TEST_CASE("Bytes behind an answer are never the next one") {
  RawServer server([](const std::string&) -> RawServer::Answer {
    return {RawServer::Ok("first") + RawServer::Ok("smuggled")};
  });
  Client client;
  for (int i = 0; i < 3; ++i)
    CHECK(*client.Send(Soon(), Get(server, "/"))->ReadAll(Soon(), KiB(4)) == "first");
  CHECK(server.connection_count() == 3);
}

TEST_CASE("An idle connection that the peer closed is replaced without a word") {
  RawServer server([](const std::string&) -> RawServer::Answer {
    return {RawServer::Ok("a"), true};
  });
  Client client;
  CHECK(*client.Send(Soon(), Get(server, "/"))->ReadAll(Soon(), MiB(1)) == "a");
  CHECK(*client.Send(Soon(), Get(server, "/"))->ReadAll(Soon(), MiB(1)) == "a");
  CHECK(server.connection_count() == 2);
}

TEST_CASE("Redirects are followed, and credentials stay with the host that they are for") {
  std::mutex mutex;
  std::string seen;
  RawServer other([&](const std::string& head) -> RawServer::Answer {
    const std::lock_guard lock(mutex);
    seen = head;
    return {RawServer::Ok("there")};
  });
  RawServer first([&](const std::string& head) -> RawServer::Answer {
    if (head.starts_with("GET /loop"))
      return {"HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n"};
    CHECK(head.find("Authorization: Bearer secret") != std::string::npos);
    if (head.starts_with("GET /here"))
      return {"HTTP/1.1 307 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"};
    return {"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://" + other.HostPort() +
            "/blob\r\n\r\n"};
  });
  Client client;
  Request request = Get(first, "/here");
  request.authorization = "Bearer secret";
  CHECK(*client.Send(Soon(), request)->ReadAll(Soon(), MiB(1)) == "there");
  const std::lock_guard lock(mutex);
  CHECK(seen.find("secret") == std::string::npos);
  CHECK(client.Send(Soon(), Get(first, "/loop")).code() == Code::kUnavailable);
}

TEST_CASE("A broken, cut or stalled answer is an error that says so") {
  RawServer server([](const std::string& head) -> RawServer::Answer {
    if (head.starts_with("GET /cut"))
      return {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", true};
    if (head.starts_with("GET /rubbish")) return {"SSH-2.0-whatever\r\n\r\n", true};
    if (head.starts_with("GET /long"))
      return {"HTTP/1.1 200 OK\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n", true};
    return {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", false, true};
  });
  Client client({.stall_timeout = std::chrono::milliseconds(200)});
  CHECK(client.Send(Soon(), Get(server, "/cut"))->ReadAll(Soon(), MiB(1)).code() ==
        Code::kUnavailable);
  CHECK(client.Send(Soon(), Get(server, "/rubbish")).code() == Code::kUnavailable);
  CHECK(client.Send(Soon(), Get(server, "/long")).code() == Code::kUnavailable);
  CHECK(client.Send(Soon(), Get(server, "/stall"))->ReadAll(Soon(), MiB(1)).code() ==
        Code::kUnavailable);
  const CallContext brief = CallContext::Background(std::chrono::milliseconds(50));
  CHECK(client.Send(Soon(), Get(server, "/stall"))->ReadAll(brief, MiB(1)).code() ==
        Code::kDeadlineExceeded);
  std::stop_source stop;
  const CallContext left(SteadyTime::max(), stop.get_token(), "r");
  Result<Response> response = client.Send(left, Get(server, "/stall"));
  std::thread leave([&stop] { stop.request_stop(); });
  CHECK(response->ReadAll(left, MiB(1)).code() == Code::kCancelled);
  leave.join();
}

TEST_CASE("A body that drips slower than wanted is broken off") {
  // A chunk each 30 ms: never silent, and never done.
  RawServer server([](const std::string&) -> RawServer::Answer {
    return {.bytes = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
            .stall = true,
            .drip = std::chrono::milliseconds(30)};
  });
  Client slow({.stall_timeout = std::chrono::milliseconds(300), .min_rate = KiB(1)});
  const auto dripped = slow.Send(Soon(), Get(server, "/"))->ReadAll(Soon(), MiB(1));
  CHECK(dripped.code() == Code::kUnavailable);
  CHECK(dripped.status().message().find("bytes a second") != std::string::npos);
  Client patient({.stall_timeout = std::chrono::milliseconds(300)});
  const CallContext brief = CallContext::Background(std::chrono::milliseconds(800));
  CHECK(patient.Send(Soon(), Get(server, "/"))->ReadAll(brief, MiB(1)).code() ==
        Code::kDeadlineExceeded);
}

TEST_CASE("Headers of an origin stay with it, and nobody can smuggle one in") {
  std::mutex mutex;
  std::string seen;
  RawServer other([&](const std::string& head) -> RawServer::Answer {
    const std::lock_guard lock(mutex);
    seen = head;
    return {RawServer::Ok("there")};
  });
  std::string first_seen;
  RawServer first([&](const std::string& head) -> RawServer::Answer {
    first_seen = head;
    return {"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://" + other.HostPort() +
            "/blob\r\n\r\n"};
  });
  Client client;
  Request request = Get(first, "/");
  request.headers = {{"Accept", "x"}};
  request.origin_headers = {{"X-Key", "secret"}, {"Authorization", "Basic secret"}};
  CHECK(client.Send(Soon(), request).ok());
  CHECK(first_seen.find("X-Key: secret\r\nAuthorization: Basic secret\r\n") != std::string::npos);
  {
    const std::lock_guard lock(mutex);
    CHECK(seen.find("secret") == std::string::npos);
    CHECK(seen.find("Accept: x") != std::string::npos);
  }
  request.authorization = "Bearer better";
  CHECK(client.Send(Soon(), request).ok());
  CHECK(first_seen.find("Authorization: Basic") == std::string::npos);
  request.origin_headers = {{"X", "a\r\nY: b"}};
  CHECK(client.Send(Soon(), request).code() == Code::kInvalidArgument);
}

TEST_CASE("A body larger than allowed is refused, announced or not") {
  RawServer server([](const std::string& head) -> RawServer::Answer {
    if (head.starts_with("GET /length")) return {RawServer::Ok(std::string(5000, 'x'))};
    return {"HTTP/1.1 200 OK\r\n\r\n" + std::string(5000, 'x'), true};
  });
  Client client;
  CHECK(client.Send(Soon(), Get(server, "/length"))->ReadAll(Soon(), KiB(4)).code() ==
        Code::kResourceExhausted);
  CHECK(client.Send(Soon(), Get(server, "/end"))->ReadAll(Soon(), KiB(4)).code() ==
        Code::kResourceExhausted);
}

TEST_CASE("A peer that speaks plain HTTP is told from one that speaks TLS and from none") {
  RawServer server([](const std::string&) -> RawServer::Answer { return {RawServer::Ok("a")}; });
  Client client;
  Url url = *Url::Parse("https://" + server.HostPort());
  CHECK_FALSE(*client.SpeaksTls(Soon(), {.url = url}));
  server.hangs_up_on_tls = true;  // which says nothing about what it speaks
  CHECK(client.SpeaksTls(Soon(), {.url = url}).code() == Code::kUnavailable);
  url.port = 1;
  CHECK(client.SpeaksTls(Soon(), {.url = url}).code() == Code::kUnavailable);
}

TEST_CASE("A name that does not resolve and loopback names are known") {
  CHECK(ResolveHost(Soon(), "no-such-host.invalid", 1).code() == Code::kUnavailable);
  CHECK(ResolveHost(Soon(), "127.0.0.1", 1)->front().ip == "127.0.0.1");
  CHECK(IsLoopbackHost("localhost"));
  CHECK(IsLoopbackHost("127.8.9.1"));
  CHECK(IsLoopbackHost("::1"));
  CHECK_FALSE(IsLoopbackHost("127.example.com"));
  CHECK_FALSE(IsLoopbackHost("registry.localhost"));
}

}  // namespace
}  // namespace crisp::http
