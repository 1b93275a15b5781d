#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/http/url.h"

namespace crisp::http {

struct Proxy {
  enum class Kind { kHttp, kSocks5 };
  Kind kind = Kind::kHttp;
  std::string host;
  std::uint16_t port = 0;
  std::string username;  // empty: none is shown
  std::string password;

  /// Without the password: fit for logs and errors.
  std::string ForLog() const;
};

/// Which requests go through a proxy: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in either
/// case, the upper one first. http:// (CONNECT for https, else absolute targets), socks5:// and
/// socks5h:// (the proxy resolves the name in both). Loopback hosts are never reached by proxy.
class ProxyConfig {
 public:
  using Variable = std::function<std::optional<std::string>(const char* name)>;

  ProxyConfig() = default;  // no proxies
  /// kInvalidArgument names the variable, not its value, which may hold a password.
  static Result<ProxyConfig> From(const Variable& variable);
  static Result<ProxyConfig> FromEnvironment();

  /// Null: straight.
  const Proxy* For(const Url& url) const;

 private:
  /// NO_PROXY's entries: "*", "host", ".suffix", "*.suffix", an address, a block of them (CIDR),
  /// each with ":port" if it is for one port only.
  bool Excluded(const Url& url) const;

  std::optional<Proxy> http_;
  std::optional<Proxy> https_;
  std::vector<std::string> excluded_;
};

}  // namespace crisp::http
