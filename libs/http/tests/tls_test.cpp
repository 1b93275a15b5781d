#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <catch2/catch.hpp>
#include <thread>

#include "libs/http/client.h"
#include "libs/http/tests/raw_server.h"
#include "libs/http/tests/test_proxy.h"
#include "libs/testing/test_root.h"

namespace crisp::http {
namespace {

using std::chrono::seconds;

/// A TLS server on loopback with a certificate of its own making for `name`; it answers each
/// connection's first request with "hello".
class TlsServer {
 public:
  explicit TlsServer(const std::string& name, bool wants_certificate = false)
      : key_(EVP_EC_gen("P-256"), &EVP_PKEY_free),
        certificate_(X509_new(), &X509_free),
        context_(SSL_CTX_new(TLS_server_method()), &SSL_CTX_free) {
    X509_set_version(certificate_.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate_.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate_.get()), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate_.get()), 3600);
    X509_set_pubkey(certificate_.get(), key_.get());
    X509_NAME* subject = X509_get_subject_name(certificate_.get());
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>("crisp test"), -1, -1, 0);
    X509_set_issuer_name(certificate_.get(), subject);
    X509_EXTENSION* names =
        X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, name.c_str());
    X509_add_ext(certificate_.get(), names, -1);
    X509_EXTENSION_free(names);
    X509_sign(certificate_.get(), key_.get(), EVP_sha256());
    SSL_CTX_use_certificate(context_.get(), certificate_.get());
    SSL_CTX_use_PrivateKey(context_.get(), key_.get());
    if (wants_certificate)
      SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                         [](int, X509_STORE_CTX*) { return 1; });

    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::listen(listener_, 8);
    socklen_t size = sizeof address;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;
  ~TlsServer() {
    stopping_ = true;
    thread_.join();
    ::close(listener_);
  }

  std::string Pem() const {
    BIO* memory = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(memory, certificate_.get());
    char* bytes = nullptr;
    const long size = BIO_ctrl(memory, BIO_CTRL_INFO, 0, &bytes);
    std::string text(bytes, static_cast<std::size_t>(size));
    BIO_free(memory);
    return text;
  }
  std::string KeyPem() const {
    BIO* memory = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(memory, key_.get(), nullptr, nullptr, 0, nullptr, nullptr);
    char* bytes = nullptr;
    const long size = BIO_ctrl(memory, BIO_CTRL_INFO, 0, &bytes);
    std::string text(bytes, static_cast<std::size_t>(size));
    BIO_free(memory);
    return text;
  }
  int port() const { return port_; }
  Url At(const std::string& host) const {
    return *Url::Parse(fmt::format("https://{}:{}/", host, port_));
  }

 private:
  void Serve() {
    while (!stopping_) {
      pollfd poll{listener_, POLLIN, 0};
      if (::poll(&poll, 1, 20) <= 0) continue;
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      SSL* ssl = SSL_new(context_.get());
      SSL_set_fd(ssl, fd);
      std::array<char, 4096> buffer;
      if (SSL_accept(ssl) == 1 && SSL_read(ssl, buffer.data(), buffer.size()) > 0) {
        const std::string answer = testing::RawServer::Ok("hello", "Connection: close\r\n");
        SSL_write(ssl, answer.data(), static_cast<int>(answer.size()));
        SSL_shutdown(ssl);
      }
      SSL_free(ssl);
      ::close(fd);
    }
  }

  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key_;
  std::unique_ptr<X509, decltype(&X509_free)> certificate_;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

CallContext Soon() { return CallContext::Background(seconds(10)); }

TEST_CASE("A server is believed only with a certificate for its name from an authority we trust") {
  const crisp::testing::TestRoot root;
  TlsServer server("IP:127.0.0.1");
  TlsServer other_name("DNS:registry.example.com");
  Client strict;
  Client trusting({.ca_file = root.Write("ca.pem", server.Pem())});
  Client wrong({.ca_file = root.Write("other.pem", other_name.Pem())});

  CHECK(*trusting.Send(Soon(), {.url = server.At("127.0.0.1")})->ReadAll(Soon(), KiB(4)) ==
        "hello");
  const auto unknown = strict.Send(Soon(), {.url = server.At("127.0.0.1")});
  CHECK(unknown.code() == Code::kUnavailable);
  CHECK(unknown.status().message().find("not trusted") != std::string::npos);
  const auto mismatch = wrong.Send(Soon(), {.url = other_name.At("127.0.0.1")});
  CHECK(mismatch.code() == Code::kUnavailable);
  CHECK(mismatch.status().message().find("not trusted") != std::string::npos);
  // The operator may call a registry insecure.
  CHECK(strict.Send(Soon(), {.url = server.At("127.0.0.1"), .verify_tls = false}).ok());
  // It speaks TLS: a certificate that does not verify is no reason to fall back to plain HTTP.
  CHECK_FALSE(strict.SpeaksTls(Soon(), {.url = server.At("127.0.0.1")}).ok());
  CHECK(*trusting.SpeaksTls(Soon(), {.url = server.At("127.0.0.1")}));
}

std::shared_ptr<const TlsOptions> Tls(TlsOptions options) {
  options.key = options.client_cert + options.client_key;
  for (const std::string& file : options.ca_files) options.key += file;
  return std::make_shared<const TlsOptions>(std::move(options));
}

TEST_CASE("A request brings its own authorities and its own certificate") {
  const crisp::testing::TestRoot root;
  TlsServer server("IP:127.0.0.1", true);
  const std::string ca = root.Write("ca.pem", server.Pem());
  const std::string key = root.Write("key.pem", server.KeyPem());
  Client client;
  const auto get = [&](const std::shared_ptr<const TlsOptions>& tls) {
    auto response = client.Send(Soon(), {.url = server.At("127.0.0.1"), .tls = tls});
    if (!response.ok()) return response.status();
    const auto body = response->ReadAll(Soon(), KiB(4));
    return body.ok() ? Status::Ok() : body.status();
  };
  const auto both = Tls({.ca_files = {ca}, .client_cert = ca, .client_key = key});
  CHECK(get(both).message() == "");
  // What one request believes and shows is not another's, whatever connections are open.
  CHECK(get(nullptr).message().find("not trusted") != std::string::npos);
  CHECK(get(Tls({.ca_files = {ca}})).code() == Code::kUnavailable);
  CHECK(get(both).message() == "");

  const auto broken = get(Tls({.ca_files = {root.Write("bad.pem", "rubbish")}}));
  CHECK(broken.code() == Code::kFailedPrecondition);
  CHECK(broken.message().find("bad.pem") != std::string::npos);
  const auto no_key = get(Tls({.client_cert = ca, .client_key = root / "absent"}));
  CHECK(no_key.code() == Code::kFailedPrecondition);
  CHECK(no_key.message().find("absent") != std::string::npos);
}

TEST_CASE("A redirect to elsewhere goes without the certificate") {
  const crisp::testing::TestRoot root;
  for (const bool wanted : {false, true}) {
    TlsServer there("IP:127.0.0.1", wanted);
    testing::RawServer first([&](const std::string&) -> testing::RawServer::Answer {
      return {"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: https://127.0.0.1:" +
              std::to_string(there.port()) + "/\r\n\r\n"};
    });
    const std::string ca = root.Write("ca.pem", there.Pem());
    const std::string key = root.Write("key.pem", there.KeyPem());
    Client client;
    auto response =
        client.Send(Soon(), {.url = *Url::Parse("http://" + first.HostPort() + "/"),
                             .tls = Tls({.ca_files = {ca}, .client_cert = ca, .client_key = key})});
    const bool ok = response.ok() && response->ReadAll(Soon(), KiB(4)).ok();
    CHECK(ok == !wanted);
  }
}

TEST_CASE("TLS goes through proxies to the host that was meant") {
  const crisp::testing::TestRoot root;
  TlsServer server("DNS:far.example");
  testing::TestProxy proxy({.target = server.port()});
  const auto tls = Tls({.ca_files = {root.Write("ca.pem", server.Pem())}});
  for (const std::string scheme : {"http://", "socks5://"}) {
    INFO(scheme);
    Client client({.proxy = *ProxyConfig::From([&](const char* name) -> std::optional<std::string> {
                     if (std::string_view(name) != "HTTPS_PROXY") return std::nullopt;
                     return scheme + proxy.HostPort();
                   })});
    const auto get = [&](const char* url) {
      auto response = client.Send(Soon(), {.url = *Url::Parse(url), .tls = tls});
      if (!response.ok()) return response.status().message();
      return response->ReadAll(Soon(), KiB(4)).value_or("broken");
    };
    CHECK(get("https://far.example/") == "hello");
    // The name in the certificate is checked behind the proxy too.
    CHECK(get("https://other.example/").find("not trusted") != std::string::npos);
  }
  CHECK(proxy.asked_for() == std::vector<std::string>{"far.example:443", "other.example:443",
                                                      "far.example:443", "other.example:443"});
}

TEST_CASE("What a proxy says ahead of TLS never passes for the peer's answer") {
  const crisp::testing::TestRoot root;
  TlsServer server("DNS:far.example");
  testing::TestProxy proxy(
      {.target = server.port(), .smuggled = testing::RawServer::Ok("the proxy's own words")});
  const auto tls = Tls({.ca_files = {root.Write("ca.pem", server.Pem())}});
  Client client({.proxy = *ProxyConfig::From([&](const char* name) -> std::optional<std::string> {
                   if (std::string_view(name) != "HTTPS_PROXY") return std::nullopt;
                   return "http://" + proxy.HostPort();
                 })});
  const Request request{.url = *Url::Parse("https://far.example/"), .tls = tls};
  const auto answer = client.Send(Soon(), request);
  CHECK(answer.code() == Code::kUnavailable);
  CHECK(answer.status().message().find("it speaks before TLS") != std::string::npos);
  CHECK_FALSE(client.SpeaksTls(Soon(), request).ok());
}

}  // namespace
}  // namespace crisp::http
