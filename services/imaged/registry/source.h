#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/http/client.h"
#include "services/imaged/registry/auth.h"
#include "services/imaged/registry/client.h"
#include "services/imaged/registry/hosts.h"

namespace crisp::imaged {

/// One endpoint as one pull uses it. Nothing is asked of it before the first request. Any thread.
class RegistryClient::Source {
 public:
  Source(http::Client& client, Hosts& hosts, Endpoint endpoint, Credentials given)
      : client_(client), hosts_(hosts), endpoint_(std::move(endpoint)), given_(std::move(given)) {}

  const Endpoint& endpoint() const { return endpoint_; }
  /// "mirror quay.io/x (credentials: none)": for errors.
  std::string Name() const;
  /// GET of `path` below the repository ("/blobs/sha256:…"). Answers with a success, or fails:
  /// kNotFound, kUnauthenticated, kPermissionDenied, kUnavailable with the reason, without the
  /// endpoint's name.
  Result<http::Response> Get(const CallContext& cc, const std::string& path,
                             const http::Headers& headers, const std::string& what);

  struct Document {
    http::Response response;  // its body is read
    std::string body;
  };
  /// The same with the whole body, which is asked for again when it breaks off. kResourceExhausted
  /// above `limit`.
  Result<Document> GetWhole(const CallContext& cc, const std::string& path,
                            const http::Headers& headers, const std::string& what, Bytes limit);

  std::atomic<bool> failed = false;  // in this pull

 private:
  struct Opened {
    Opened(http::Client& client, Hosts& hosts, const Endpoint& settled, FoundCredentials found)
        : endpoint(settled),
          authorizer(client, hosts.tokens(), std::move(found.credentials), settled.repository,
                     settled.insecure_allowed,
                     {[&hosts](const std::string& host) { return hosts.IsInsecure(host); },
                      [&hosts](const std::string& host) { return hosts.CertsOf(host); }}),
          credential_source(std::move(found.source)) {}
    const Endpoint endpoint;
    Authorizer authorizer;
    const std::string credential_source;
  };
  Result<std::shared_ptr<Opened>> Open(const CallContext& cc);

  http::Client& client_;
  Hosts& hosts_;
  const Endpoint endpoint_;
  const Credentials given_;
  mutable std::mutex mutex_;
  std::shared_ptr<Opened> opened_;
};

}  // namespace crisp::imaged
