#include "services/imaged/registry/auth.h"

#include <algorithm>

#include "cri/v1/api.pb.h"
#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/digest/digest.h"
#include "libs/json/json.h"
#include "services/imaged/registry/retry.h"

namespace crisp::imaged {
namespace {

constexpr std::size_t kMaxToken = 64 * 1024;
constexpr std::size_t kMaxTokens = 1000;              // held
constexpr std::chrono::seconds kDefaultLifetime{60};  // of a token whose server names none
constexpr std::chrono::seconds kLongestToken{3600};
constexpr std::chrono::seconds kTokenMargin{10};

bool IsTokenChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

std::string BasicHeader(const std::string& username, const std::string& password) {
  return "Basic " + Base64(username + ":" + password);
}

}  // namespace

std::string Credentials::Fingerprint() const {
  if (empty()) return {};
  digest::Sha256 sum;
  for (const std::string* part : {&username, &password, &identity_token, &registry_token, &scope}) {
    sum.Update(*part);
    sum.Update(std::string_view("\0", 1));
  }
  return sum.Hex();
}

bool Credentials::MayGoTo(std::string_view location, bool own) const {
  return scope.empty() ? own : Covers(scope, location);
}

std::string NormalizeServer(std::string_view address) {
  bool whole = false;
  if (const std::size_t scheme = address.find("://"); scheme != std::string_view::npos) {
    address.remove_prefix(scheme + 3);
    whole = true;
  }
  while (address.ends_with('/')) address.remove_suffix(1);
  const std::size_t slash = address.find('/');
  const std::string_view path = slash == address.npos ? "" : address.substr(slash + 1);
  whole = whole || path == "v1" || path == "v2";
  std::string host = Lower(address.substr(0, slash));
  if (host == "index.docker.io" || host == "registry-1.docker.io") host = "docker.io";
  return whole || path.empty() ? host : host + "/" + std::string(path);
}

bool Covers(std::string_view scope, std::string_view location) {
  return location.starts_with(scope) &&
         (location.size() == scope.size() || location[scope.size()] == '/');
}

Status DecodeBasic(const std::string& encoded, Credentials& credentials) {
  // Not the helper's own message: it could quote the secret.
  const Result<std::string> plain = FromBase64(encoded);
  const std::size_t colon = plain.ok() ? plain->find(':') : std::string::npos;
  if (colon == std::string::npos || colon == 0)
    return InvalidArgument("the credentials' auth field is not base64 of user:password");
  credentials.username = plain->substr(0, colon);
  credentials.password = plain->substr(colon + 1);
  while (credentials.password.ends_with('\0')) credentials.password.pop_back();
  return Status::Ok();
}

Result<Credentials> ParseAuth(const runtime::v1::AuthConfig& auth) {
  Credentials credentials;
  credentials.username = auth.username();
  credentials.password = auth.password();
  credentials.identity_token = auth.identity_token();
  credentials.registry_token = auth.registry_token();
  if (!auth.server_address().empty()) credentials.scope = NormalizeServer(auth.server_address());
  if (credentials.username.empty() && !auth.auth().empty())
    CRISP_TRY(DecodeBasic(auth.auth(), credentials));
  return credentials;
}

std::vector<Challenge> ParseChallenges(std::string_view header) {
  std::vector<Challenge> challenges;
  std::size_t at = 0;
  const auto skip = [&](std::string_view set) {
    while (at < header.size() && set.find(header[at]) != std::string_view::npos) ++at;
  };
  const auto token = [&] {
    const std::size_t from = at;
    while (at < header.size() && IsTokenChar(header[at])) ++at;
    return header.substr(from, at - from);
  };
  while (true) {
    skip(" \t,");
    if (at >= header.size()) return challenges;
    const std::string_view word = token();
    if (word.empty()) {
      ++at;
      continue;
    }
    const std::size_t after_word = at;
    skip(" \t");
    if (at < header.size() && header[at] == '=' && !challenges.empty()) {
      ++at;
      skip(" \t");
      std::string value;
      if (at < header.size() && header[at] == '"') {
        for (++at; at < header.size() && header[at] != '"'; ++at) {
          if (header[at] == '\\' && at + 1 < header.size()) ++at;
          value.push_back(header[at]);
        }
        ++at;
      } else {
        value = token();
      }
      challenges.back().parameters[Lower(word)] = std::move(value);
    } else {
      at = after_word;
      challenges.push_back({Lower(word), {}});
    }
  }
}

std::string TokenCache::Find(const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return {};
  if (found->second.until > std::chrono::steady_clock::now()) return found->second.token;
  entries_.erase(found);
  return {};
}

void TokenCache::Put(const std::string& key, std::string token, std::chrono::seconds lifetime) {
  const SteadyTime now = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex_);
  if (entries_.size() >= kMaxTokens) {
    std::erase_if(entries_, [now](const auto& each) { return each.second.until <= now; });
    if (entries_.size() >= kMaxTokens) entries_.clear();
  }
  entries_[key] = {std::move(token), now + std::min(lifetime, kLongestToken) - kTokenMargin};
}

void TokenCache::Drop(const std::string& key, const std::string& token) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found != entries_.end() && found->second.token == token) entries_.erase(found);
}

std::string Authorizer::Current() const {
  const std::lock_guard lock(mutex_);
  return header_;
}

Status Authorizer::Renew(const CallContext& cc, const std::vector<std::string>& challenges,
                         const std::string& refused, const http::Request& like) {
  if (const std::string now = Current(); now != refused) return Status::Ok();
  std::vector<Challenge> all;
  for (const std::string& header : challenges)
    for (Challenge& each : ParseChallenges(header)) all.push_back(std::move(each));
  const auto find = [&all](std::string_view scheme) -> const Challenge* {
    for (const Challenge& each : all)
      if (each.scheme == scheme) return &each;
    return nullptr;
  };
  std::string header;
  if (const Challenge* bearer = find("bearer"); bearer != nullptr) {
    if (!credentials_.registry_token.empty()) {
      header = "Bearer " + credentials_.registry_token;
    } else {
      header = "Bearer " + CRISP_TRY(Token(cc, *bearer, refused, like));
    }
  } else if (find("basic") != nullptr && !credentials_.username.empty()) {
    header = BasicHeader(credentials_.username, credentials_.password);
  }
  if (header.empty()) return Unauthenticated("it asks for credentials and none fit were given");
  if (header == refused) return Unauthenticated("it refuses the credentials");
  const std::lock_guard lock(mutex_);
  header_ = std::move(header);
  return Status::Ok();
}

/// A request to a token server, which is spoken to as the registry itself (`like`) where that is
/// the same machine. Another one's certificates are its own; without any the registry's authorities
/// may have made its, but it is not shown the certificate that we have for the registry.
Result<http::Request> Authorizer::RequestTo(const std::string& realm,
                                            const http::Request& like) const {
  http::Request request;
  request.url = CRISP_TRY(http::Url::Parse(realm).While("token realm"));
  const std::string host = Lower(request.url.HostPort());
  const bool same_host = request.url.host == like.url.host;
  const bool insecure = same_host ? insecure_allowed_ : trust_.is_insecure(host);
  request.verify_tls = same_host ? like.verify_tls : !insecure;
  // A registry elsewhere has no business with what listens on this machine.
  const bool local = http::IsLoopbackHost(request.url.host) && http::IsLoopbackHost(like.url.host);
  if (!request.url.tls() && !insecure && !local)
    return Unauthenticated("the token server {} is not https", request.url.HostPort());
  if (request.url.Origin() != like.url.Origin())
    request.tls = CRISP_TRY(trust_.certs(host).While("the token server {}", host));
  if (!request.tls && like.tls)
    request.tls = same_host ? like.tls : http::WithoutCertificate(*like.tls);
  return request;
}

/// A token for what the challenge asks: one that we hold, unless it is the refused one, or a new.
Result<std::string> Authorizer::Token(const CallContext& cc, const Challenge& challenge,
                                      const std::string& refused, const http::Request& like) const {
  const auto parameter = [&challenge](const char* name) {
    const auto found = challenge.parameters.find(name);
    return found == challenge.parameters.end() ? std::string() : found->second;
  };
  http::Request request = CRISP_TRY(RequestTo(parameter("realm"), like));
  std::string scope = parameter("scope");
  if (scope.empty()) scope = fmt::format("repository:{}:pull", repository_);
  const std::string service = parameter("service");
  const std::string key =
      fmt::format("{} {} {} {} {}", request.url.Origin() + request.url.target, service, scope,
                  credentials_.Fingerprint(), like.url.Origin());
  if (refused.starts_with("Bearer ")) tokens_.Drop(key, refused.substr(7));
  if (std::string token = tokens_.Find(key); !token.empty()) return token;
  std::chrono::seconds lifetime = kDefaultLifetime;
  std::string token = CRISP_TRY(FetchToken(cc, std::move(request), service, scope, lifetime));
  tokens_.Put(key, token, lifetime);
  return token;
}

Result<std::string> Authorizer::FetchToken(const CallContext& cc, http::Request request,
                                           const std::string& service, const std::string& scope,
                                           std::chrono::seconds& lifetime) const {
  std::string query = "service=" + http::PercentEncode(service);
  // Several scopes come as one text with spaces; each is a parameter of its own.
  for (std::string_view rest = scope; !rest.empty();) {
    const std::string_view one = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(rest.size(), one.size() + 1));
    if (!one.empty()) query += "&scope=" + http::PercentEncode(one);
  }
  if (!credentials_.identity_token.empty()) {
    request.method = "POST";
    request.headers.emplace_back("Content-Type", "application/x-www-form-urlencoded");
    request.body = "grant_type=refresh_token&client_id=crisp&" + query +
                   "&refresh_token=" + http::PercentEncode(credentials_.identity_token);
  } else {
    if (!credentials_.username.empty()) {
      request.authorization = BasicHeader(credentials_.username, credentials_.password);
      query += "&account=" + http::PercentEncode(credentials_.username);
    }
    request.url.target += (request.url.target.find('?') == std::string::npos ? "?" : "&") + query;
  }
  http::Response response = CRISP_TRY(SendPatiently(cc, client_, request).While("token server"));
  const std::string host = request.url.HostPort();
  if (response.status() == 401 || response.status() == 403 || response.status() == 400)
    return Unauthenticated("the token server {} refuses the credentials", host);
  if (response.status() != 200)
    return Unavailable("the token server {} answers with status {}", host, response.status());
  const std::string body = CRISP_TRY(response.ReadAll(cc, KiB(256)));
  // Neither the answer nor the parser's message about it may reach an error: both hold the token.
  const Result<nlohmann::json> json = json::Parse(body);
  std::string token;
  if (json.ok()) {
    token = json::OptString(*json, "token").value_or("");
    if (token.empty()) token = json::OptString(*json, "access_token").value_or("");
    const std::int64_t seconds = json::OptInt(*json, "expires_in").value_or(0);
    if (seconds > 0) lifetime = std::chrono::seconds(std::min<std::int64_t>(seconds, 86400));
  }
  if (token.empty() || token.size() > kMaxToken || token.find_first_of("\r\n") != std::string::npos)
    return Unavailable("the token server {} gives no usable token", host);
  return token;
}

}  // namespace crisp::imaged
