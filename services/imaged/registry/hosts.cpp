#include "services/imaged/registry/hosts.h"

#include <algorithm>
#include <optional>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "services/imaged/registry/certs.h"
#include "services/imaged/registry/hosts_toml.h"

namespace crisp::imaged {
namespace {

constexpr std::uint16_t kHttpPort = 80;
constexpr std::uint16_t kHttpsPort = 443;
constexpr std::string_view kHub = "docker.io";
constexpr auto kPlainFor = std::chrono::minutes(5);

/// Its host and port as the configuration has them: Settle may change the port.
std::string KeyOf(const Endpoint& endpoint) {
  return endpoint.location.substr(0, endpoint.location.find('/'));
}

Endpoint FromToml(const HostsToml::Host& host, const ref::ImageRef& image, bool mirror) {
  Endpoint endpoint;
  endpoint.root = host.url;
  endpoint.repository = image.path;
  const std::string at = NormalizeServer(host.url.HostPort());
  endpoint.location = at + "/" + image.path;
  endpoint.mirror = mirror;
  endpoint.own = at == image.domain;
  endpoint.can_resolve = host.can_resolve;
  endpoint.can_pull = host.can_pull;
  endpoint.verify_tls = host.verify_tls;
  endpoint.insecure_allowed = !host.url.tls();
  endpoint.settled = true;  // the file names the scheme
  endpoint.tls = host.tls;
  endpoint.headers = host.headers;
  if (mirror) endpoint.name_space = image.domain;
  return endpoint;
}

}  // namespace

Hosts::Hosts(http::Client& client, HostsOptions options, Clock& clock)
    : client_(client),
      options_(std::move(options)),
      registries_(options_.registries_conf, options_.short_name_aliases),
      auth_files_(options_.auth_files, options_.helper_dirs),
      clock_(clock) {}

bool Hosts::IsListed(const std::string& host) const {
  const std::string name = host.substr(0, host.rfind(':'));
  return std::any_of(options_.insecure.begin(), options_.insecure.end(),
                     [&](const std::string& written) {
                       const std::string each = Lower(written);
                       return each == host || each == name;
                     });
}

bool Hosts::IsInsecure(const std::string& host) {
  if (IsListed(host)) return true;
  const auto conf = registries_.Current();
  if (!conf.ok()) return false;
  const std::string name = host.substr(0, host.rfind(':'));
  return std::any_of((*conf)->registries.begin(), (*conf)->registries.end(), [&](const auto& each) {
    const std::string place = each.location.substr(0, each.location.find('/'));
    return each.insecure && (place == host || place == name);
  });
}

Result<std::shared_ptr<const http::TlsOptions>> Hosts::CertsOf(const std::string& host) const {
  return CertsFor(options_.certs_dirs, host);
}

Result<std::vector<ref::ImageRef>> Hosts::Names(std::string_view image) {
  const auto conf = CRISP_TRY(registries_.Current());
  return conf->NamesOf(image);
}

Result<std::vector<ref::ImageRef>> Hosts::NamesHere(std::string_view image) {
  Result<std::vector<ref::ImageRef>> names = Names(image);
  if (names.ok()) return names;
  return std::vector{CRISP_TRY(ref::Parse(image))};
}

Result<Endpoint> Hosts::EndpointOf(const Place& place, const ref::ImageRef& image) const {
  Endpoint endpoint;
  const std::string address = place.host == kHub ? "registry-1.docker.io" : place.host;
  endpoint.root = CRISP_TRY(http::Url::Parse("https://" + address + "/v2").While("{}", place.host));
  endpoint.repository = place.repository;
  endpoint.location = place.Location();
  endpoint.mirror = place.mirror;
  endpoint.own = place.host == image.domain;
  const bool insecure = place.insecure || IsListed(place.host);
  endpoint.verify_tls = !insecure;
  endpoint.insecure_allowed = insecure || http::IsLoopbackHost(endpoint.root.host);
  endpoint.settled = !endpoint.insecure_allowed;
  endpoint.tls = CRISP_TRY(CertsOf(place.host));
  return endpoint;
}

Result<std::vector<Endpoint>> Hosts::Find(const ref::ImageRef& image) {
  const auto conf = CRISP_TRY(registries_.Current());
  const std::vector<Place> places = CRISP_TRY(conf->PlacesOf(image));
  std::vector<Endpoint> endpoints;
  // An entry of registries.conf decides alone; else the host's hosts.toml may.
  std::optional<HostsToml> toml;
  if (conf->Match(image) == nullptr)
    toml = CRISP_TRY(HostsToml::Load(options_.hosts_dir, image.domain));
  if (toml) {
    for (const HostsToml::Host& mirror : toml->mirrors)
      endpoints.push_back(FromToml(mirror, image, true));
    if (toml->server) endpoints.push_back(FromToml(*toml->server, image, false));
    if (toml->server) return endpoints;
  }
  for (const Place& place : places) endpoints.push_back(CRISP_TRY(EndpointOf(place, image)));
  return endpoints;
}

Status Hosts::Settle(const CallContext& cc, Endpoint& endpoint) {
  if (endpoint.settled) return Status::Ok();
  const std::string host = KeyOf(endpoint);
  bool plain = false;
  {
    const std::lock_guard lock(mutex_);
    const auto known = plain_http_.find(host);
    plain = known != plain_http_.end() && clock_.Now() < known->second;
  }
  if (!plain) {
    http::Request request;
    request.url = endpoint.root;
    request.verify_tls = endpoint.verify_tls;
    request.tls = endpoint.tls;
    plain = !CRISP_TRY(client_.SpeaksTls(cc, request));
    const std::lock_guard lock(mutex_);
    // Plain HTTP alone is remembered: a registry that speaks TLS costs nothing to ask again, and
    // one that learns it must be noticed soon.
    if (plain) plain_http_[host] = clock_.Now() + kPlainFor;
  }
  if (plain) {
    endpoint.root.scheme = "http";
    const bool named = endpoint.location.find(":443/") != std::string::npos;
    if (endpoint.root.port == kHttpsPort && !named) endpoint.root.port = kHttpPort;
  }
  endpoint.settled = true;
  return Status::Ok();
}

void Hosts::Doubt(const Endpoint& endpoint) {
  const std::lock_guard lock(mutex_);
  plain_http_.erase(KeyOf(endpoint));
}

Result<FoundCredentials> Hosts::CredentialsFor(const CallContext& cc, const Endpoint& endpoint,
                                               const Credentials& given) {
  if (!given.empty() && given.MayGoTo(endpoint.location, endpoint.own))
    return FoundCredentials{given, "the pull request"};
  const auto conf = CRISP_TRY(registries_.Current());
  return auth_files_.Find(cc, endpoint.location,
                          conf->credential_helpers.value_or(std::vector<std::string>()));
}

}  // namespace crisp::imaged
