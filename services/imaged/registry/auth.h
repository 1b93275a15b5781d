#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "libs/http/client.h"

namespace runtime::v1 {
class AuthConfig;
}

namespace crisp::imaged {

/// What somebody may show to a registry. Never printed.
struct Credentials {
  std::string username;
  std::string password;
  std::string identity_token;  // an OAuth2 refresh token
  std::string registry_token;  // a bearer token, sent as it is
  /// host[:port][/path] that they are for; empty: the registry that the image's own name leads to.
  std::string scope;

  bool empty() const {
    return username.empty() && identity_token.empty() && registry_token.empty();
  }
  /// Tells different credentials apart without holding them.
  std::string Fingerprint() const;
  /// May they be shown to `location` (host[:port]/repository)? `own`: the image's name leads there.
  bool MayGoTo(std::string_view location, bool own) const;
};

/// "https://index.docker.io/v1/" → "docker.io", "quay.io/team" stays: what a server address or a
/// key of an auth file stands for. Keys with a scheme or an API path name a whole registry.
std::string NormalizeServer(std::string_view address);
/// True when `scope` is `location` or one of the namespaces above it.
bool Covers(std::string_view scope, std::string_view location);
/// "user:password" in base64 into both. kInvalidArgument without a word of it.
Status DecodeBasic(const std::string& encoded, Credentials& credentials);

/// The CRI's AuthConfig, with its server_address as their scope. kInvalidArgument: a malformed
/// `auth`.
Result<Credentials> ParseAuth(const runtime::v1::AuthConfig& auth);

/// One challenge of a WWW-Authenticate header; scheme and keys in lower case.
struct Challenge {
  std::string scheme;
  std::map<std::string, std::string> parameters;
};
/// Malformed parts are left out.
std::vector<Challenge> ParseChallenges(std::string_view header);

/// Bearer tokens that still hold, by who asked for what (a token server, service, scope and the
/// fingerprint of the credentials). Any thread.
class TokenCache {
 public:
  /// "" when there is none.
  std::string Find(const std::string& key);
  void Put(const std::string& key, std::string token, std::chrono::seconds lifetime);
  /// A registry refused this one.
  void Drop(const std::string& key, const std::string& token);

 private:
  struct Entry {
    std::string token;
    SteadyTime until;
  };
  std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

/// Answers a registry's challenges for one repository and remembers the answer. Any thread.
class Authorizer {
 public:
  /// What the node's configuration says about a token server (host:port).
  struct Trust {
    /// It may go without a certificate that we trust.
    std::function<bool(const std::string& host)> is_insecure;
    /// Certificates of its own; null where there are none.
    std::function<Result<std::shared_ptr<const http::TlsOptions>>(const std::string& host)> certs;
  };
  /// `insecure_allowed`: of the registry. A token server at another host must be insecure itself.
  Authorizer(http::Client& client, TokenCache& tokens, Credentials credentials,
             std::string repository, bool insecure_allowed, Trust trust)
      : client_(client),
        tokens_(tokens),
        credentials_(std::move(credentials)),
        repository_(std::move(repository)),
        insecure_allowed_(insecure_allowed),
        trust_(std::move(trust)) {}

  /// The Authorization header to send now; "" as long as nobody asked for one.
  std::string Current() const;
  /// Makes a new header after a 401 whose request carried `refused`. kUnauthenticated: the registry
  /// refuses what we have. A token that another thread fetched meanwhile is taken. `like`: how the
  /// registry itself is spoken to.
  Status Renew(const CallContext& cc, const std::vector<std::string>& challenges,
               const std::string& refused, const http::Request& like);

 private:
  Result<std::string> Token(const CallContext& cc, const Challenge& challenge,
                            const std::string& refused, const http::Request& like) const;
  Result<http::Request> RequestTo(const std::string& realm, const http::Request& like) const;
  Result<std::string> FetchToken(const CallContext& cc, http::Request request,
                                 const std::string& service, const std::string& scope,
                                 std::chrono::seconds& lifetime) const;

  http::Client& client_;
  TokenCache& tokens_;
  const Credentials credentials_;
  const std::string repository_;
  const bool insecure_allowed_;
  const Trust trust_;
  mutable std::mutex mutex_;
  std::string header_;
};

}  // namespace crisp::imaged
