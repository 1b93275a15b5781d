#include "services/rund/streaming/server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <charconv>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "libs/http/websocket.h"
#include "libs/testing/manual_clock.h"
#include "libs/testing/test_root.h"
#include "services/rund/runtime/exec_process.h"
#include "services/rund/streaming/spdy_frames.h"
#include "services/rund/streaming/spdy_headers.h"

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

/// Half a minute at most for each read.
os::UniqueFd ConnectTo(const std::string& url) {
  const std::size_t slash = url.find('/', url.find("://") + 3);
  const std::size_t colon = url.rfind(':', slash);
  std::uint16_t port = 0;
  std::from_chars(url.data() + colon + 1, url.data() + slash, port);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  os::UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval limit{30, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  REQUIRE(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  return fd;
}

/// A blocking client.
class Client {
 public:
  Client(const std::string& url, const std::string& head) : fd_(ConnectTo(url)) {
    Send("POST " + url.substr(url.find('/', url.find("://") + 3)) + " HTTP/1.1\r\nHost: x\r\n" +
         head + "\r\n");
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
void WriteCertificate(const testing::TestRoot& root, long serial = 1) {
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  const std::unique_ptr<X509, void (*)(X509*)> made(X509_new(), &X509_free);
  ASN1_INTEGER_set(X509_get_serialNumber(made.get()), serial);
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

/// The serial number of the certificate that a client of this version is shown; 0 when they do not
/// come to terms.
long SerialAt(const std::string& url, int version = TLS1_3_VERSION) {
  const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_client_method()),
                                                             &SSL_CTX_free);
  SSL_CTX_set_security_level(context.get(), 0);  // it is the server that refuses
  SSL_CTX_set_min_proto_version(context.get(), version);
  SSL_CTX_set_max_proto_version(context.get(), version);
  const std::unique_ptr<SSL, void (*)(SSL*)> tls(SSL_new(context.get()), &SSL_free);
  const os::UniqueFd fd = ConnectTo(url);
  SSL_set_fd(tls.get(), fd.get());
  if (SSL_connect(tls.get()) != 1) return 0;
  const std::unique_ptr<X509, void (*)(X509*)> shown(SSL_get1_peer_certificate(tls.get()),
                                                     &X509_free);
  return ASN1_INTEGER_get(X509_get0_serialNumber(shown.get()));
}

struct Rig {
  explicit Rig(ServerOptions options = {}, Backend backend = {}) {
    options.retry = options.check = options.tls_check = milliseconds(1);
    server = Server::Start(std::move(options), std::move(backend), pool, clock).value();
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

TEST_CASE("While too many commands run on without their clients, no exec is taken") {
  const testing::TestRoot root;
  REQUIRE(mkfifo((root / "go").c_str(), 0600) == 0);
  const std::string helper = root.Script("helper", "echo 4242 > $1; echo up; read x < ${0%/*}/go");
  const auto start = [&](const CallContext&, const runtime::v1::ExecRequest& request) {
    return StartExec({.runtime = "/bin/false",
                      .runtime_options = {},
                      .container_id = request.container_id(),
                      .process_json = "{}",
                      .scratch_dir = root.path(),
                      .helper = helper},
                     {.out = true});
  };
  Rig rig({.max_left = 1}, {.exec = start, .attach = nullptr, .sockets = nullptr});
  runtime::v1::ExecRequest request;
  request.set_container_id("c");
  request.set_stdout(true);
  {
    Client client(rig.server->UrlFor(request).value(), kUpgrade);
    REQUIRE(client.Status() == "101");
    spdy::HeaderWriter headers;
    client.Send(spdy::SynStream(1, 0, headers.Write({{"streamtype", "error"}})));
    client.Send(spdy::SynStream(3, 0, headers.Write({{"streamtype", "stdout"}})));
    while (client.answer().find("up\n") == std::string::npos) REQUIRE(client.Read());
    CHECK(rig.server->left() == 0);
  }
  CHECK(Eventually([&] { return rig.server->left() == 1; }));
  const auto refused = rig.server->UrlFor(request);
  CHECK(refused.code() == Code::kResourceExhausted);
  CHECK(refused.status().message().find("run on after their clients have gone") !=
        std::string::npos);
  CHECK_FALSE(rig.Url().empty());
  const os::UniqueFd fifo(open((root / "go").c_str(), O_WRONLY | O_CLOEXEC));
  REQUIRE(write(fifo.get(), "x\n", 2) == 2);
  CHECK(Eventually([&] { return rig.server->left() == 0; }));
  CHECK(rig.server->UrlFor(request).ok());
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

TEST_CASE("A certificate that is replaced is shown from then on, and sessions of before go on") {
  const testing::TestRoot root;
  WriteCertificate(root, 1);
  Rig rig({.tls = {root / "cert.pem", root / "key.pem", "1.2"}});
  CHECK(Eventually([&] { return rig.server->problem().ok(); }));
  const std::string url = rig.Url();
  CHECK(SerialAt(url) == 1);
  loop::Loop loop;
  loop.Start();
  const auto tunnel = http::WebSocket::Connect(
      CallContext::Background(seconds(30), "test"), loop, http::Url::Parse(url).value(),
      {.protocols = {"SPDY/3.1+portforward.k8s.io"}, .verify_tls = false});
  REQUIRE(tunnel.ok());
  CHECK(Eventually([&] { return rig.server->sessions() == 1; }));
  WriteCertificate(root, 2);
  CHECK(Eventually([&] { return SerialAt(url) == 2; }));
  CHECK(rig.server->sessions() == 1);
  (*tunnel)->Close();
  loop.Stop();
}

TEST_CASE(
    "A replacement that is no good leaves the old certificate in use, until a good one comes") {
  const std::string wrong = GENERATE("no certificate", "none", "without its key");
  const testing::TestRoot root;
  const testing::TestRoot fresh;
  WriteCertificate(root, 1);
  WriteCertificate(fresh, 2);
  const auto take = [&](const std::string& file) {
    REQUIRE(std::rename((fresh / file).c_str(), (root / file).c_str()) == 0);
  };
  Rig rig({.tls = {root / "cert.pem", root / "key.pem", "1.2"}});
  CHECK(Eventually([&] { return rig.server->problem().ok(); }));
  const std::string url = rig.Url();
  if (wrong == "no certificate") root.Write("cert.pem", wrong);
  if (wrong == "none") REQUIRE(std::remove((root / "cert.pem").c_str()) == 0);
  if (wrong == "without its key") take("cert.pem");
  // It looks every millisecond.
  for (int i = 0; i < 50; ++i) REQUIRE(SerialAt(url) == 1);
  CHECK(rig.server->problem().ok());
  if (wrong != "without its key") take("cert.pem");
  take("key.pem");
  CHECK(Eventually([&] { return SerialAt(url) == 2; }));
}

TEST_CASE("A client whose TLS is too old for the settings is refused") {
  const std::string min_version = GENERATE("1.2", "1.3");
  const testing::TestRoot root;
  WriteCertificate(root, 7);
  Rig rig({.tls = {root / "cert.pem", root / "key.pem", min_version}});
  CHECK(Eventually([&] { return rig.server->problem().ok(); }));
  const std::string url = rig.Url();
  CHECK(SerialAt(url, TLS1_1_VERSION) == 0);
  CHECK(SerialAt(url, TLS1_2_VERSION) == (min_version == "1.2" ? 7 : 0));
  CHECK(SerialAt(url, TLS1_3_VERSION) == 7);
}

}  // namespace crisp::rund::streaming
