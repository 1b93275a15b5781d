#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "libs/base/result.h"

namespace crisp::http {

/// An absolute http or https URL, without user information (which is refused) and fragment.
struct Url {
  std::string scheme;  // "http" or "https"
  std::string host;    // lower case; an IPv6 address without its brackets
  std::uint16_t port = 0;
  std::string target = "/";  // path and query

  static Result<Url> Parse(std::string_view text);
  /// Where a Location header of this URL's answer leads: absolute, "//host/…", "/path" or relative.
  Result<Url> Resolve(std::string_view location) const;

  bool tls() const { return scheme == "https"; }
  /// "host" or "host:port" when the port is not the scheme's own: the Host header.
  std::string HostPort() const;
  /// "https://host:port": what a connection and a credential belong to.
  std::string Origin() const;
  /// Without the query, which may carry a signature: fit for logs and errors.
  std::string ForLog() const;
};

/// application/x-www-form-urlencoded of one value.
std::string PercentEncode(std::string_view text);

}  // namespace crisp::http
