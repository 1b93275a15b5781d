#include "libs/http/proxy.h"

#include <catch2/catch.hpp>
#include <map>

#include "libs/http/client.h"
#include "libs/http/tests/raw_server.h"
#include "libs/http/tests/test_proxy.h"

namespace crisp::http {
namespace {

using std::chrono::seconds;
using testing::RawServer;
using testing::TestProxy;

CallContext Soon() { return CallContext::Background(seconds(10)); }

Result<ProxyConfig> From(const std::map<std::string, std::string>& variables) {
  return ProxyConfig::From([&](const char* name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

std::string For(const ProxyConfig& config, const std::string& url) {
  const Proxy* proxy = config.For(*Url::Parse(url));
  return proxy == nullptr ? "straight" : proxy->ForLog();
}

TEST_CASE("The environment says which proxy is whose") {
  const auto config = From({{"HTTP_PROXY", "http://plain:3128"},
                            {"https_proxy", "secure:8080"},
                            {"HTTPS_PROXY", ""},
                            {"ALL_PROXY", "socks5://all"}});
  CHECK(For(*config, "http://a.example/") == "http://plain:3128");
  CHECK(For(*config, "https://a.example/") == "http://secure:8080");
  CHECK(For(*From({{"all_proxy", "socks5h://u:p%40@[::1]"}}), "https://a.example/") ==
        "socks5://[::1]:1080");
  CHECK(For(*From({}), "https://a.example/") == "straight");
  const auto with_user = From({{"HTTP_PROXY", "http://u:p%40%3A@host:1"}});
  CHECK(with_user->For(*Url::Parse("http://a.example"))->password == "p@:");
  for (const char* bad : {"https://p:1", "ftp://p", "http://", "http://u:secret@", "u:%zz@p",
                          "http://p:secret", "http://:secret@p"}) {
    INFO(bad);
    const auto broken = From({{"HTTPS_PROXY", bad}});
    CHECK(broken.code() == Code::kInvalidArgument);
    CHECK(broken.status().message().starts_with("HTTPS_PROXY: "));
    CHECK(broken.status().message().find("secret") == std::string::npos);
  }
}

TEST_CASE("NO_PROXY knows hosts, suffixes, ports, addresses and blocks of them") {
  const auto config = From({{"ALL_PROXY", "p:1"},
                            {"NO_PROXY",
                             "exact.example, .sub.example,*.star.example port.example:5000 "
                             "10.0.0.0/8,192.168.1.5,fd00::/8 [fd99::1]:80,bad/99"}});
  REQUIRE(config.ok());
  const auto straight = [&](const std::string& host) {
    return For(*config, "http://" + host) == "straight";
  };
  CHECK(straight("exact.example"));
  CHECK(straight("EXACT.example:7"));
  CHECK(straight("under.exact.example"));
  CHECK_FALSE(straight("notexact.example"));
  CHECK(straight("a.sub.example"));
  CHECK_FALSE(straight("sub.example"));
  CHECK(straight("a.b.star.example"));
  CHECK_FALSE(straight("star.example"));
  CHECK(straight("port.example:5000"));
  CHECK_FALSE(straight("port.example:5001"));
  CHECK(straight("10.255.0.1"));
  CHECK_FALSE(straight("11.0.0.1"));
  CHECK(straight("192.168.1.5:5000"));
  CHECK_FALSE(straight("192.168.1.50"));
  CHECK(straight("[fd12::1]"));
  CHECK_FALSE(straight("[fe12::1]"));
  // Loopback is never a proxy's.
  CHECK(straight("localhost:5000"));
  CHECK(straight("127.0.0.1"));
  CHECK(straight("[::1]"));
  CHECK(For(*From({{"ALL_PROXY", "p:1"}, {"NO_PROXY", "*"}}), "https://a.example") == "straight");
}

/// A client whose requests all go through `proxy`.
Client Through(const std::string& proxy) {
  return Client({.proxy = *From({{"ALL_PROXY", proxy}})});
}

TEST_CASE("Plain requests go through an HTTP proxy as absolute targets") {
  std::mutex mutex;
  std::string seen;
  RawServer proxy([&](const std::string& head) -> RawServer::Answer {
    const std::lock_guard lock(mutex);
    seen = head;
    return {RawServer::Ok("by proxy")};
  });
  Client client = Through("http://u:p@" + proxy.HostPort());
  for (const char* url : {"http://a.example:5000/v2/x?y", "http://b.example/"})
    CHECK(*client.Send(Soon(), {.url = *Url::Parse(url), .authorization = "Basic own"})
               ->ReadAll(Soon(), KiB(4)) == "by proxy");
  CHECK(proxy.connection_count() == 1);
  const std::lock_guard lock(mutex);
  CHECK(seen.starts_with("GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n"));
  CHECK(seen.find("Proxy-Authorization: Basic dTpw\r\n") != std::string::npos);
  CHECK(seen.find("\r\nAuthorization: Basic own\r\n") != std::string::npos);
}

TEST_CASE("SOCKS 5 proxies resolve the name and may want a password") {
  RawServer server([](const std::string& head) -> RawServer::Answer {
    return {RawServer::Ok(head.substr(0, head.find("\r\nUser")))};
  });
  const auto get = [](Client& client) {
    auto response = client.Send(Soon(), {.url = *Url::Parse("http://far.example:5000/x")});
    if (!response.ok()) return response.status().message();
    return response->ReadAll(Soon(), KiB(4)).value_or("broken");
  };
  TestProxy open({.target = server.port()});
  Client client = Through("socks5://" + open.HostPort());
  CHECK(get(client) == "GET /x HTTP/1.1\r\nHost: far.example:5000");
  CHECK(get(client) == "GET /x HTTP/1.1\r\nHost: far.example:5000");
  CHECK(open.asked_for() == std::vector<std::string>{"far.example:5000"});

  TestProxy guarded({.target = server.port(), .user = "u", .password = "p"});
  Client right = Through("socks5://u:p@" + guarded.HostPort());
  CHECK(get(right) == "GET /x HTTP/1.1\r\nHost: far.example:5000");
  Client wrong = Through("socks5://u:secret@" + guarded.HostPort());
  CHECK(get(wrong).find("refuses its user and password") != std::string::npos);
  CHECK(get(wrong).find("secret") == std::string::npos);
  Client nobody = Through("socks5://" + guarded.HostPort());
  CHECK(get(nobody).find("wants a user and a password") != std::string::npos);
  TestProxy refusing({.target = 0});
  Client refused = Through("socks5://" + refusing.HostPort());
  CHECK(get(refused).find("does not reach far.example:5000: connection refused") !=
        std::string::npos);
  RawServer other([](const std::string&) -> RawServer::Answer { return {"HTTP/1.1 400 No\r\n"}; });
  Client lost = Client({.connect_timeout = std::chrono::milliseconds(300),
                        .proxy = *From({{"ALL_PROXY", "socks5://" + other.HostPort()}})});
  CHECK(get(lost).find("proxy socks5://" + other.HostPort()) != std::string::npos);
}

TEST_CASE("A proxy that is away or refuses is named") {
  const auto message = [](const std::string& proxy) {
    Client client = Through(proxy);
    const auto answer = client.Send(Soon(), {.url = *Url::Parse("https://far.example/x")});
    CHECK(answer.code() == Code::kUnavailable);
    return answer.status().message();
  };
  CHECK(message("127.0.0.1:1").starts_with("far.example: proxy http://127.0.0.1:1: connect: "));
  RawServer refusing([](const std::string& head) -> RawServer::Answer {
    CHECK(head.starts_with("CONNECT far.example:443 HTTP/1.1\r\n"));
    return {"HTTP/1.1 407 Authenticate\r\nContent-Length: 0\r\n\r\n"};
  });
  CHECK(message("u:secret@" + refusing.HostPort())
            .find("it refuses the way to far.example:443 with status 407") != std::string::npos);
  CHECK(message("u:secret@" + refusing.HostPort()).find("secret") == std::string::npos);
}

}  // namespace
}  // namespace crisp::http
