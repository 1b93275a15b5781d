#include "libs/http/proxy.h"

#include <arpa/inet.h>

#include <array>
#include <charconv>
#include <cstdlib>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/http/client.h"

namespace crisp::http {
namespace {

constexpr std::uint16_t kProxyPort = 80;
constexpr std::uint16_t kSocksPort = 1080;

std::optional<std::string> PercentDecode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    unsigned value = 0;
    if (i + 2 >= text.size()) return std::nullopt;
    const auto [end, error] = std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16);
    if (error != std::errc() || end != text.data() + i + 3) return std::nullopt;
    out.push_back(static_cast<char>(value));
    i += 2;
  }
  return out;
}

/// "[scheme://][user[:password]@]host[:port]".
Result<Proxy> ParseProxy(std::string_view text) {
  Proxy proxy;
  std::string scheme = "http";
  if (const std::size_t colon = text.find("://"); colon != text.npos) {
    scheme = Lower(text.substr(0, colon));
    text.remove_prefix(colon + 3);
  }
  if (scheme == "socks5" || scheme == "socks5h") {
    proxy.kind = Proxy::Kind::kSocks5;
  } else if (scheme != "http") {
    return InvalidArgument("a proxy is http://, socks5:// or socks5h://");
  }
  text = text.substr(0, text.find('/'));
  if (const std::size_t at = text.rfind('@'); at != text.npos) {
    const std::string_view user = text.substr(0, at);
    text.remove_prefix(at + 1);
    const std::size_t colon = user.find(':');
    const auto name = PercentDecode(user.substr(0, colon));
    const auto password = PercentDecode(colon == user.npos ? "" : user.substr(colon + 1));
    if (!name || !password || name->empty() || name->size() > 255 || password->size() > 255)
      return InvalidArgument("the proxy's user and password are malformed");
    proxy.username = *name;
    proxy.password = *password;
  }
  const Result<Url> url = Url::Parse("http://" + std::string(text));
  if (!url.ok()) return InvalidArgument("the proxy's host and port are malformed");
  proxy.host = url->host;
  const bool named = !text.ends_with(']') && text.rfind(':') != text.npos;
  proxy.port = named ? url->port : proxy.kind == Proxy::Kind::kSocks5 ? kSocksPort : kProxyPort;
  return proxy;
}

struct Address {
  std::array<unsigned char, 16> bytes{};
  int bits = 0;  // 32 or 128
};

std::optional<Address> ParseAddress(const std::string& text) {
  Address address;
  if (::inet_pton(AF_INET, text.c_str(), address.bytes.data()) == 1) {
    address.bits = 32;
    return address;
  }
  if (::inet_pton(AF_INET6, text.c_str(), address.bytes.data()) == 1) {
    address.bits = 128;
    return address;
  }
  return std::nullopt;
}

bool InBlock(const Address& address, std::string_view block) {
  const std::size_t slash = block.find('/');
  const auto net = ParseAddress(std::string(block.substr(0, slash)));
  if (!net || net->bits != address.bits) return false;
  int bits = 0;
  const std::string_view length = block.substr(slash + 1);
  const auto [end, error] = std::from_chars(length.data(), length.data() + length.size(), bits);
  if (error != std::errc() || end != length.data() + length.size() || bits < 0 || bits > net->bits)
    return false;
  for (std::size_t i = 0; bits > 0; ++i, bits -= 8) {
    const unsigned mask = bits >= 8 ? 0xFFU : (0xFFU << static_cast<unsigned>(8 - bits)) & 0xFFU;
    if ((address.bytes[i] & mask) != (net->bytes[i] & mask)) return false;
  }
  return true;
}

bool Matches(std::string_view entry, const Url& url) {
  if (entry == "*") return true;
  const auto address = ParseAddress(url.host);
  if (entry.find('/') != entry.npos) return address && InBlock(*address, entry);
  // An address of version 6 has colons of its own.
  std::string host(entry);
  if (host.starts_with('[')) {
    const std::size_t end = host.find(']');
    if (end == host.npos) return false;
    if (end + 1 < host.size() && host.substr(end + 1) != fmt::format(":{}", url.port)) return false;
    host = host.substr(1, end - 1);
  } else if (const std::size_t colon = host.rfind(':');
             colon != host.npos && host.find(':') == colon) {
    if (host.substr(colon + 1) != std::to_string(url.port)) return false;
    host.resize(colon);
  }
  if (const auto own = ParseAddress(host))
    return address && own->bits == address->bits && own->bytes == address->bytes;
  if (host.starts_with("*.")) host.erase(0, 1);
  if (host.starts_with('.')) return url.host.size() > host.size() && url.host.ends_with(host);
  return !host.empty() && (url.host == host || url.host.ends_with("." + host));
}

}  // namespace

std::string Proxy::ForLog() const {
  return fmt::format("{}://{}:{}", kind == Kind::kHttp ? "http" : "socks5",
                     host.find(':') == std::string::npos ? host : "[" + host + "]", port);
}

Result<ProxyConfig> ProxyConfig::From(const Variable& variable) {
  ProxyConfig config;
  const auto get = [&variable](const std::string& name) {
    std::string value = variable(name.c_str()).value_or("");
    if (value.empty()) value = variable(Lower(name).c_str()).value_or("");
    return value;
  };
  const auto proxy = [&get](const std::string& name, std::optional<Proxy>& into) -> Status {
    const std::string value = get(name);
    if (!value.empty()) into = CRISP_TRY(ParseProxy(value).While("{}", name));
    return Status::Ok();
  };
  CRISP_TRY(proxy("ALL_PROXY", config.http_));
  config.https_ = config.http_;
  CRISP_TRY(proxy("HTTP_PROXY", config.http_));
  CRISP_TRY(proxy("HTTPS_PROXY", config.https_));
  const std::string excluded = Lower(get("NO_PROXY"));
  for (std::string_view rest = excluded; !rest.empty();) {
    const std::string_view entry = rest.substr(0, rest.find_first_of(", \t"));
    rest.remove_prefix(std::min(rest.size(), entry.size() + 1));
    if (!entry.empty()) config.excluded_.emplace_back(entry);
  }
  return config;
}

Result<ProxyConfig> ProxyConfig::FromEnvironment() {
  return From([](const char* name) -> std::optional<std::string> {
    const char* value = ::getenv(name);  // NOLINT(concurrency-mt-unsafe): at start, nobody sets it
    if (value == nullptr) return std::nullopt;
    return value;
  });
}

bool ProxyConfig::Excluded(const Url& url) const {
  if (IsLoopbackHost(url.host)) return true;
  for (const std::string& entry : excluded_)
    if (Matches(entry, url)) return true;
  return false;
}

const Proxy* ProxyConfig::For(const Url& url) const {
  const std::optional<Proxy>& proxy = url.tls() ? https_ : http_;
  return proxy && !Excluded(url) ? &*proxy : nullptr;
}

}  // namespace crisp::http
