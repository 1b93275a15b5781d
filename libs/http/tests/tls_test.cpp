#include <catch2/catch.hpp>

#include "libs/http/client.h"
#include "libs/http/tests/raw_server.h"
#include "libs/http/tests/test_proxy.h"
#include "libs/http/tests/tls_server.h"
#include "libs/testing/test_root.h"

namespace crisp::http {
namespace {

using std::chrono::seconds;

using testing::TlsServer;

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
