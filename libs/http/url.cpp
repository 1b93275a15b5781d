#include "libs/http/url.h"

#include <array>
#include <charconv>

#include "libs/base/text.h"
#include "libs/base/try.h"

namespace crisp::http {
namespace {

constexpr std::uint16_t kHttpPort = 80;
constexpr std::uint16_t kHttpsPort = 443;

bool HasControlOrSpace(std::string_view text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) return true;
  return false;
}

}  // namespace

Result<Url> Url::Parse(std::string_view text) {
  if (text.size() > 16384 || HasControlOrSpace(text)) return InvalidArgument("malformed URL");
  Url url;
  const std::size_t colon = text.find("://");
  if (colon == std::string_view::npos) return InvalidArgument("a URL without a scheme");
  url.scheme = Lower(text.substr(0, colon));
  if (url.scheme != "http" && url.scheme != "https")
    return InvalidArgument("the scheme of a URL must be http or https");
  url.port = url.tls() ? kHttpsPort : kHttpPort;
  std::string_view rest = text.substr(colon + 3);
  rest = rest.substr(0, rest.find('#'));
  const std::size_t path = rest.find_first_of("/?");
  const std::string_view authority = rest.substr(0, path);
  if (path != std::string_view::npos) {
    url.target = rest.substr(path);
    if (url.target.front() == '?') url.target.insert(0, "/");
  }
  if (authority.find('@') != std::string_view::npos)
    return InvalidArgument("a URL with a user name in it");

  std::string_view host = authority;
  std::string_view port;
  if (authority.starts_with('[')) {
    const std::size_t end = authority.find(']');
    if (end == std::string_view::npos) return InvalidArgument("malformed IPv6 address in a URL");
    host = authority.substr(1, end - 1);
    const std::string_view after = authority.substr(end + 1);
    if (!after.empty() && !after.starts_with(':')) return InvalidArgument("malformed URL");
    port = after.empty() ? after : after.substr(1);
  } else if (const std::size_t at = authority.rfind(':'); at != std::string_view::npos) {
    host = authority.substr(0, at);
    port = authority.substr(at + 1);
    if (host.find(':') != std::string_view::npos) return InvalidArgument("malformed URL");
  }
  if (host.empty()) return InvalidArgument("a URL without a host");
  if (!port.empty()) {
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), url.port);
    if (error != std::errc() || end != port.data() + port.size() || url.port == 0)
      return InvalidArgument("malformed port in a URL");
  }
  url.host = Lower(host);
  return url;
}

Result<Url> Url::Resolve(std::string_view location) const {
  if (location.find("://") != std::string_view::npos &&
      location.find("://") < location.find_first_of("/?#"))
    return Parse(location);
  if (location.starts_with("//")) return Parse(scheme + ":" + std::string(location));
  if (HasControlOrSpace(location) || location.empty()) return InvalidArgument("malformed redirect");
  Url url = *this;
  const std::string_view clean = location.substr(0, location.find('#'));
  const std::string_view path = std::string_view(target).substr(0, target.find('?'));
  if (clean.starts_with('/')) {
    url.target = clean;
  } else if (clean.starts_with('?')) {
    url.target = std::string(path) + std::string(clean);
  } else {
    url.target = std::string(path.substr(0, path.rfind('/') + 1)) + std::string(clean);
  }
  return url;
}

std::string Url::HostPort() const {
  const std::string name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  if (port == (tls() ? kHttpsPort : kHttpPort)) return name;
  return fmt::format("{}:{}", name, port);
}

std::string Url::Origin() const {
  const std::string name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return fmt::format("{}://{}:{}", scheme, name, port);
}

std::string Url::ForLog() const {
  return fmt::format("{}://{}{}", scheme, HostPort(), target.substr(0, target.find('?')));
}

std::string PercentEncode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.' || c == '~';
    if (plain) {
      out.push_back(c);
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

}  // namespace crisp::http
