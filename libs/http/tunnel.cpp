#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/http/connection.h"

// The ways through a proxy, before the connection itself is used.
namespace crisp::http::internal {
namespace {

constexpr char kSocksVersion = 5;
constexpr char kNoAuthentication = 0;
constexpr char kUserPassword = 2;
constexpr char kConnect = 1;
constexpr char kDomainName = 3;
constexpr std::size_t kMaxDomain = 255;

std::string_view SocksReason(unsigned char code) {
  switch (code) {
    case 1: return "general failure";
    case 2: return "not allowed by its rules";
    case 3: return "network unreachable";
    case 4: return "host unreachable";
    case 5: return "connection refused";
    case 6: return "time to live expired";
    default: return "unknown failure";
  }
}

}  // namespace

Result<std::string> Connection::ReadExactly(const CallContext& cc, std::size_t count,
                                            std::chrono::nanoseconds limit) {
  std::string bytes(count, '\0');
  for (std::size_t have = 0; have < count;)
    have += CRISP_TRY(ReadSome(cc, std::span(bytes).subspan(have), limit));
  return bytes;
}

Status Connection::TunnelHttp(const CallContext& cc, const Proxy& proxy, const Url& url,
                              std::chrono::nanoseconds limit) {
  const std::string host =
      url.host.find(':') == std::string::npos ? url.host : "[" + url.host + "]";
  std::string head = fmt::format("CONNECT {0}:{1} HTTP/1.1\r\nHost: {0}:{1}\r\n", host, url.port);
  if (!proxy.username.empty())
    head += fmt::format("Proxy-Authorization: Basic {}\r\n",
                        Base64(proxy.username + ":" + proxy.password));
  head += "\r\n";
  CRISP_TRY(Write(cc, head, limit));
  const Head answer = CRISP_TRY(ReadHeader(cc, limit, KiB(64), true));
  if (answer.status / 100 != 2)
    return Unavailable("it refuses the way to {}:{} with status {}", host, url.port, answer.status);
  return Status::Ok();
}

/// RFC 1928 and 1929; the name goes to the proxy, which resolves it.
Status Connection::TunnelSocks(const CallContext& cc, const Proxy& proxy, const Url& url,
                               std::chrono::nanoseconds limit) {
  if (url.host.size() > kMaxDomain) return InvalidArgument("the host's name is too long");
  const auto length = [](const std::string& text) { return static_cast<char>(text.size()); };
  std::string greeting = {kSocksVersion, 1, kNoAuthentication};
  if (!proxy.username.empty()) greeting = {kSocksVersion, 2, kNoAuthentication, kUserPassword};
  CRISP_TRY(Write(cc, greeting, limit));
  const std::string method = CRISP_TRY(ReadExactly(cc, 2, limit));
  if (method[0] != kSocksVersion) return Unavailable("it does not speak SOCKS 5");
  if (method[1] == kUserPassword && !proxy.username.empty()) {
    std::string login = {1, length(proxy.username)};
    login += proxy.username;
    login.push_back(length(proxy.password));
    login += proxy.password;
    CRISP_TRY(Write(cc, login, limit));
    if (CRISP_TRY(ReadExactly(cc, 2, limit))[1] != 0)
      return Unavailable("it refuses its user and password");
  } else if (method[1] != kNoAuthentication) {
    return Unavailable("it wants a user and a password");
  }
  std::string request = {kSocksVersion, kConnect, 0, kDomainName, length(url.host)};
  request += url.host;
  request.push_back(static_cast<char>(url.port >> 8U));
  request.push_back(static_cast<char>(url.port & 0xFFU));
  CRISP_TRY(Write(cc, request, limit));
  const std::string answer = CRISP_TRY(ReadExactly(cc, 5, limit));
  if (answer[0] != kSocksVersion) return Unavailable("it does not speak SOCKS 5");
  if (answer[1] != 0)
    return Unavailable("it does not reach {}:{}: {}", url.host, url.port,
                       SocksReason(static_cast<unsigned char>(answer[1])));
  // The address that it is bound to, of which the first byte is here, and a port.
  std::size_t rest = 0;
  switch (answer[3]) {
    case 1: rest = 3 + 2; break;
    case 4: rest = 15 + 2; break;
    case kDomainName: rest = static_cast<unsigned char>(answer[4]) + std::size_t{2}; break;
    default: return Unavailable("it does not speak SOCKS 5");
  }
  static_cast<void>(CRISP_TRY(ReadExactly(cc, rest, limit)));
  return Status::Ok();
}

Status Connection::Tunnel(const CallContext& cc, const Proxy& proxy, const Url& url,
                          std::chrono::nanoseconds limit) {
  Status status = proxy.kind == Proxy::Kind::kSocks5 ? TunnelSocks(cc, proxy, url, limit)
                                                     : TunnelHttp(cc, proxy, url, limit);
  return std::move(status).While("proxy {}", proxy.ForLog());
}

}  // namespace crisp::http::internal
