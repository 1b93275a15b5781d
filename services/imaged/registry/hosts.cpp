#include "services/imaged/registry/hosts.h"

#include <algorithm>
#include <optional>

#include "libs/base/try.h"

namespace crisp::imaged {

bool Hosts::IsInsecure(const std::string& domain, const std::string& host) const {
  return std::any_of(insecure_.begin(), insecure_.end(),
                     [&](const std::string& each) { return each == domain || each == host; });
}

Result<Endpoint> Hosts::Find(const CallContext& cc, const std::string& domain) {
  const std::string address = domain == "docker.io" ? "registry-1.docker.io" : domain;
  Endpoint endpoint;
  endpoint.url = CRISP_TRY(http::Url::Parse("https://" + address + "/").While("{}", domain));
  const bool insecure = IsInsecure(domain, endpoint.url.host);
  endpoint.verify_tls = !insecure;
  endpoint.insecure_allowed = insecure || http::IsLoopbackHost(endpoint.url.host);
  if (!endpoint.insecure_allowed) return endpoint;

  std::optional<bool> tls;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = speaks_tls_.find(domain); found != speaks_tls_.end())
      tls = found->second;
  }
  if (!tls) {
    tls = CRISP_TRY(client_.SpeaksTls(cc, endpoint.url, endpoint.verify_tls));
    const std::lock_guard lock(mutex_);
    // Plain HTTP alone is remembered: a registry that speaks TLS costs nothing to ask again, and
    // one that learns it must be noticed after a restart at the latest.
    if (!*tls) speaks_tls_[domain] = false;
  }
  if (!*tls) {
    const std::uint16_t https_port = 443;
    endpoint.url.scheme = "http";
    if (endpoint.url.port == https_port && address.find(":443") == std::string::npos)
      endpoint.url.port = 80;
  }
  return endpoint;
}

}  // namespace crisp::imaged
