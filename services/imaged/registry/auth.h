#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/http/client.h"

namespace runtime::v1 {
class AuthConfig;
}

namespace crisp::imaged {

/// What somebody may show to one registry. Never printed.
struct Credentials {
  std::string username;
  std::string password;
  std::string identity_token;  // an OAuth2 refresh token
  std::string registry_token;  // a bearer token, sent as it is

  bool empty() const {
    return username.empty() && identity_token.empty() && registry_token.empty();
  }
  /// Tells different credentials apart without holding them.
  std::string Fingerprint() const;
};

/// The CRI's AuthConfig for a registry (`domain` of the image's name). Credentials with a
/// server_address go to no other host: then the result is empty. kInvalidArgument: a malformed
/// `auth`.
Result<Credentials> CredentialsFor(const runtime::v1::AuthConfig& auth, const std::string& domain);

/// One challenge of a WWW-Authenticate header; scheme and keys in lower case.
struct Challenge {
  std::string scheme;
  std::map<std::string, std::string> parameters;
};
/// Malformed parts are left out.
std::vector<Challenge> ParseChallenges(std::string_view header);

/// Answers a registry's challenges for one repository and remembers the answer. Any thread.
class Authorizer {
 public:
  Authorizer(http::Client& client, Credentials credentials, std::string repository,
             bool insecure_allowed)
      : client_(client),
        credentials_(std::move(credentials)),
        repository_(std::move(repository)),
        insecure_allowed_(insecure_allowed) {}

  /// The Authorization header to send now; "" as long as nobody asked for one.
  std::string Current() const;
  /// Makes a new header after a 401 whose request carried `refused`. kUnauthenticated: the registry
  /// refuses what we have. A token that another thread fetched meanwhile is taken.
  Status Renew(const CallContext& cc, const std::vector<std::string>& challenges,
               const std::string& refused, bool verify_tls);

 private:
  Result<std::string> FetchToken(const CallContext& cc, const Challenge& challenge,
                                 bool verify_tls) const;

  http::Client& client_;
  const Credentials credentials_;
  const std::string repository_;
  const bool insecure_allowed_;
  mutable std::mutex mutex_;
  std::string header_;
};

}  // namespace crisp::imaged
