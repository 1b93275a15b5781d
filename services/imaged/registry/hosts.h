#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/http/client.h"

namespace crisp::imaged {

/// Where a registry is reached and how far it is trusted.
struct Endpoint {
  http::Url url;  // of "/"
  bool verify_tls = true;
  bool insecure_allowed = false;  // plain HTTP is acceptable there
};

/// Knows which registries may be spoken to without TLS, and what they turned out to speak. Any
/// thread.
class Hosts {
 public:
  Hosts(http::Client& client, std::vector<std::string> insecure)
      : client_(client), insecure_(std::move(insecure)) {}

  /// The endpoint of an image name's domain. HTTPS, except on loopback and for insecure registries
  /// that do not speak TLS: those are tried once and remembered. kUnavailable names the endpoint
  /// and the reason.
  Result<Endpoint> Find(const CallContext& cc, const std::string& domain);

 private:
  bool IsInsecure(const std::string& domain, const std::string& host) const;

  http::Client& client_;
  const std::vector<std::string> insecure_;
  std::mutex mutex_;
  std::map<std::string, bool> speaks_tls_;  // by domain
};

}  // namespace crisp::imaged
