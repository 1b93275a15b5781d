#pragma once

#include <string>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/digest/digest.h"
#include "libs/http/client.h"
#include "libs/ref/ref.h"
#include "services/imaged/registry/auth.h"
#include "services/imaged/registry/hosts.h"

namespace crisp::imaged {

/// A manifest as the registry sent it, with the digest of exactly these bytes.
struct FetchedManifest {
  std::string body;
  std::string media_type;
  digest::Digest digest;
};

/// One repository of one registry, for one pull. Any thread. Errors: kNotFound names what is
/// missing, kUnauthenticated / kPermissionDenied, kUnavailable ("RegistryUnavailable: …") when it
/// cannot be reached or answers with errors beyond the retries. 429 and 5xx are tried again with
/// back-off.
class RegistryClient {
 public:
  static Result<std::unique_ptr<RegistryClient>> Open(const CallContext& cc, http::Client& client,
                                                      Hosts& hosts, const ref::ImageRef& image,
                                                      Credentials credentials);

  /// By tag or digest. With a digest the body is verified (kDataLoss).
  Result<FetchedManifest> Manifest(const CallContext& cc, const std::string& tag_or_digest,
                                   Bytes limit);
  /// A small blob, verified (kDataLoss).
  Result<std::string> Blob(const CallContext& cc, const digest::Digest& digest, Bytes limit);
  /// A blob's bytes from `offset` on, by a Range request where `offset` is not 0.
  Result<http::Response> OpenBlob(const CallContext& cc, const digest::Digest& digest,
                                  std::uint64_t offset);

 private:
  RegistryClient(http::Client& client, Endpoint endpoint, const ref::ImageRef& image,
                 Credentials credentials);
  Result<http::Response> Get(const CallContext& cc, const std::string& path,
                             const http::Headers& headers, const std::string& what);
  Status Refusal(const CallContext& cc, http::Response& response, const std::string& what) const;

  http::Client& client_;
  const Endpoint endpoint_;
  const std::string repository_;  // "library/busybox"
  const std::string image_;       // as errors name it
  Authorizer authorizer_;
};

/// Waits unless the call ends before: for back-off.
Status Pause(const CallContext& cc, std::chrono::nanoseconds duration);

}  // namespace crisp::imaged
