#include "services/rund/streaming/server.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <charconv>
#include <memory>
#include <string>
#include <thread>

#include "libs/http/websocket.h"
#include "libs/testing/manual_clock.h"
#include "libs/testing/test_root.h"
#include "services/rund/streaming/spdy_frames.h"

namespace crisp::rund::streaming {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

bool Eventually(const std::function<bool()>& done) {
  const auto deadline = steady_clock::now() + seconds(30);
  while (!done()) {
    if (steady_clock::now() >= deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

/// A blocking client; half a minute at most for each read.
class Client {
 public:
  Client(const std::string& url, const std::string& head)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const std::size_t host = url.find("://") + 3;
    const std::size_t slash = url.find('/', host);
    const std::size_t colon = url.rfind(':', slash);
    std::uint16_t port = 0;
    std::from_chars(url.data() + colon + 1, url.data() + slash, port);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    const timeval limit{30, 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    REQUIRE(connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    Send("POST " + url.substr(slash) + " HTTP/1.1\r\nHost: x\r\n" + head + "\r\n");
    while (answer_.find("\r\n\r\n") == std::string::npos && Read()) {
    }
  }
  void Send(std::string_view text) const {
    REQUIRE(send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(text.size()));
  }
  bool Read() {
    char some[4096];
    const ssize_t n = recv(fd_.get(), some, sizeof some, 0);
    if (n > 0) answer_.append(some, static_cast<std::size_t>(n));
    return n > 0;
  }
  std::string Status() const { return answer_.substr(9, 3); }
  const std::string& answer() const { return answer_; }

 private:
  os::UniqueFd fd_;
  std::string answer_;
};

constexpr const char* kUpgrade = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";

/// A certificate of its own making, and its key.
void WriteCertificate(const testing::TestRoot& root) {
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  const std::unique_ptr<X509, void (*)(X509*)> made(X509_new(), &X509_free);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(made.get()), 3600);
  X509_set_pubkey(made.get(), key.get());
  X509_sign(made.get(), key.get(), EVP_sha256());
  FILE* file = fopen((root / "key.pem").c_str(), "w");
  PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  fclose(file);
  file = fopen((root / "cert.pem").c_str(), "w");
  PEM_write_X509(file, made.get());
  fclose(file);
}

struct Rig {
  explicit Rig(ServerOptions options = {}) {
    options.retry = options.check = options.tls_check = milliseconds(1);
    server = Server::Start(std::move(options), {}, pool, clock).value();
  }
  std::string Url() const {
    runtime::v1::PortForwardRequest request;
    request.set_pod_sandbox_id("p");
    return server->UrlFor(request).value();
  }

  testing::ManualClock clock;
  work::Pool pool;
  std::unique_ptr<Server> server;
};

}  // namespace

TEST_CASE("A URL is good for what it was given out for, once, within a minute") {
  Rig rig;
  const std::string url = rig.Url();
  const std::string other = "/exec" + url.substr(url.rfind('/'));
  CHECK(Client(url.substr(0, url.find('/', 8)) + other, kUpgrade).Status() == "404");
  CHECK(Client(url, "").Status() == "400");
  const std::string strange = std::string(kUpgrade) + "X-Stream-Protocol-Version: strange\r\n";
  CHECK(Client(url, strange).Status() == "403");
  const Client client(url, kUpgrade);
  CHECK(client.Status() == "101");
  CHECK(Client(url, kUpgrade).Status() == "404");
  const std::string old = rig.Url();
  rig.clock.Advance(std::chrono::minutes(1));
  CHECK(Client(old, kUpgrade).Status() == "404");
  CHECK(Eventually([&] { return rig.server->sessions() == 1; }));
}

TEST_CASE("A session in which no byte of a stream moves is ended, pings or not") {
  Rig rig({.idle_timeout = hours(4)});
  Client client(rig.Url(), kUpgrade);
  REQUIRE(client.Status() == "101");
  CHECK(Eventually([&] { return rig.server->sessions() == 1; }));
  const std::size_t before = client.answer().size();
  for (int i = 0; i < 4; ++i) {
    CHECK(rig.server->sessions() == 1);
    client.Send(spdy::Ping(1));
    while (client.answer().size() < before + 12 * static_cast<std::size_t>(i + 1)) {
      REQUIRE(client.Read());
    }
    rig.clock.Advance(hours(1));
  }
  while (client.Read()) {
  }
  // Told, and then the end.
  CHECK(client.answer().size() > before + 48);
}

TEST_CASE("A server that ends says so, and gives out nothing more") {
  Rig rig;
  Client client(rig.Url(), kUpgrade);
  REQUIRE(client.Status() == "101");
  rig.server->EndAll(Unavailable("rund is stopping"));
  CHECK(rig.server->UrlFor(runtime::v1::ExecRequest()).code() == Code::kUnavailable);
  while (client.Read()) {
  }
  rig.server->EndAll(Unavailable("again"));
}

TEST_CASE("An address that is none is refused; one that is taken is waited for") {
  work::Pool pool;
  testing::ManualClock clock;
  CHECK(Server::Start({.address = "localhost:1"}, {}, pool, clock).code() ==
        Code::kInvalidArgument);
  auto first = std::make_unique<Rig>();
  const std::string url = first->Url();
  const std::string address = url.substr(7, url.find('/', 8) - 7);
  Rig second({.address = address});
  CHECK_FALSE(second.server->problem().ok());
  first.reset();
  CHECK(Eventually([&] { return second.server->problem().ok(); }));
  CHECK(Client(second.Url(), kUpgrade).Status() == "101");
}

TEST_CASE("A certificate that is not there keeps nobody from starting, and is used once it is") {
  const std::string min_version = GENERATE("1.2", "1.3");
  const testing::TestRoot root;
  Rig rig({.tls = {root / "cert.pem", root / "key.pem", min_version}});
  CHECK(rig.server->problem().code() == Code::kInvalidArgument);
  CHECK(rig.server->UrlFor(runtime::v1::ExecRequest()).code() == Code::kUnavailable);
  WriteCertificate(root);
  CHECK(Eventually([&] { return rig.server->problem().ok(); }));
  const std::string url = rig.Url();
  CHECK(url.starts_with("https://"));
  loop::Loop loop;
  loop.Start();
  const auto tunnel = http::WebSocket::Connect(
      CallContext::Background(seconds(30), "test"), loop, http::Url::Parse(url).value(),
      {.protocols = {"SPDY/3.1+portforward.k8s.io"}, .verify_tls = false});
  INFO(tunnel.status().ToString());
  REQUIRE(tunnel.ok());
  CHECK((*tunnel)->protocol() == "SPDY/3.1+portforward.k8s.io");
  CHECK(Eventually([&] { return rig.server->sessions() == 1; }));
  (*tunnel)->Close();
  loop.Stop();
}

}  // namespace crisp::rund::streaming
