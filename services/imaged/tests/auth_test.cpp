#include "services/imaged/registry/auth.h"

#include <catch2/catch.hpp>

#include "cri/v1/api.pb.h"
#include "services/imaged/registry/certs.h"

namespace crisp::imaged {
namespace {

using std::chrono::seconds;

TEST_CASE("Challenges are taken apart, one or several in a header") {
  const auto one = ParseChallenges(
      R"(Bearer realm="https://auth.example.com/token",service="a, b",scope="repository:x/y:pull")");
  REQUIRE(one.size() == 1);
  CHECK(one[0].scheme == "bearer");
  CHECK(one[0].parameters.at("realm") == "https://auth.example.com/token");
  CHECK(one[0].parameters.at("service") == "a, b");
  const auto two =
      ParseChallenges(R"(Negotiate, Basic realm="x \"y\"" , charset=UTF-8, BEARER Realm=z)");
  REQUIRE(two.size() == 3);
  CHECK(two[0].scheme == "negotiate");
  CHECK(two[1].parameters.at("realm") == "x \"y\"");
  CHECK(two[1].parameters.at("charset") == "UTF-8");
  CHECK(two[2].parameters.at("realm") == "z");
  for (const char* bad : {"", ",,,", "=", "\"", "Basic realm=\"never closed", "\x01\x02", "a=b"})
    CHECK(ParseChallenges(bad).size() <= 2);
}

TEST_CASE("A token server is not insecure because its registry is") {
  http::Client client;
  TokenCache tokens;
  http::Request like{.url = *http::Url::Parse("http://127.0.0.1:5000/v2/"), .verify_tls = false};
  const auto renew = [&](const std::string& realm, const std::string& insecure) {
    Authorizer authorizer(client, tokens, {.username = "joe", .password = "secret"}, "x", true,
                          {[&insecure](const std::string& host) { return host == insecure; },
                           [](const std::string& host) { return CertsFor({}, host); }});
    return authorizer.Renew(CallContext::Background(seconds(20)),
                            {"Bearer realm=\"" + realm + "\""}, "", like);
  };
  CHECK(renew("http://auth.invalid:81/token", "").message().ends_with("is not https"));
  CHECK(renew("http://auth.invalid:81/token", "other.invalid").code() == Code::kUnauthenticated);
  // The operator's own word for it is another matter: it is asked (and not there).
  CHECK(renew("http://auth.invalid:81/token", "auth.invalid:81").code() == Code::kUnavailable);
  CHECK(renew("https://auth.invalid:81/token", "").code() == Code::kUnavailable);
  // Services of this machine are asked for no registry but one of this machine (not there either).
  CHECK(renew("http://localhost:1/token", "").code() == Code::kUnavailable);
  like.url = *http::Url::Parse("https://registry.example/v2/");
  CHECK(renew("http://localhost:1/token", "").message().ends_with("is not https"));
}

/// What a pull with `auth` shows to `location`, where its image's own name leads to `own`.
Credentials Shown(const runtime::v1::AuthConfig& auth, const std::string& location,
                  const std::string& own) {
  const Result<Credentials> parsed = ParseAuth(auth);
  REQUIRE(parsed.ok());
  return parsed->MayGoTo(location, location.starts_with(own + "/")) ? *parsed : Credentials();
}

TEST_CASE("Credentials are taken in each form the CRI has, for their registry only") {
  runtime::v1::AuthConfig auth;
  auth.set_auth("am9lOnNlY3JldDp4");  // joe:secret:x
  CHECK(Shown(auth, "example.com/x", "example.com").username == "joe");
  CHECK(Shown(auth, "example.com/x", "example.com").password == "secret:x");
  CHECK(Shown(auth, "mirror.com/x", "example.com").empty());
  auth.set_server_address("https://example.com/v2/");
  CHECK(Shown(auth, "example.com/x", "example.com").username == "joe");
  CHECK(Shown(auth, "evil.com/x", "evil.com").empty());
  CHECK(Shown(auth, "example.com.evil.com/x", "example.com.evil.com").empty());
  // A mirror may be meant as well as the registry itself.
  CHECK(Shown(auth, "example.com/x", "docker.io").username == "joe");
  auth.set_server_address("example.com/team");
  CHECK(Shown(auth, "example.com/team/x", "example.com").username == "joe");
  CHECK(Shown(auth, "example.com/teams/x", "example.com").empty());
  auth.set_server_address("https://index.docker.io/v1/");
  CHECK(Shown(auth, "docker.io/library/x", "docker.io").username == "joe");
  auth.Clear();
  auth.set_auth("%%%secret");
  const auto bad = ParseAuth(auth);
  CHECK(bad.code() == Code::kInvalidArgument);
  CHECK(bad.status().message().find("secret") == std::string::npos);
  auth.Clear();
  auth.set_registry_token("t");
  CHECK(ParseAuth(auth)->registry_token == "t");
  CHECK(Credentials{}.Fingerprint().empty());
  CHECK(Credentials{.username = "a", .password = "bc"}.Fingerprint() !=
        Credentials{.username = "ab", .password = "c"}.Fingerprint());
  CHECK(Credentials{.username = "a", .scope = "x"}.Fingerprint() !=
        Credentials{.username = "a", .scope = "y"}.Fingerprint());
}

TEST_CASE("A server's address is brought to the form that names have") {
  CHECK(NormalizeServer("https://index.docker.io/v1/") == "docker.io");
  CHECK(NormalizeServer("registry-1.docker.io") == "docker.io");
  CHECK(NormalizeServer("Example.COM:5000") == "example.com:5000");
  CHECK(NormalizeServer("example.com/Team") == "example.com/Team");
  CHECK(NormalizeServer("http://example.com/team") == "example.com");
  CHECK(NormalizeServer("example.com/v2/") == "example.com");
  CHECK(NormalizeServer("").empty());
}

TEST_CASE("Tokens are kept for who asked, and as long as they hold") {
  TokenCache cache;
  cache.Put("joe", "t1", seconds(60));
  CHECK(cache.Find("joe") == "t1");
  CHECK(cache.Find("ann").empty());
  cache.Drop("joe", "another");
  CHECK(cache.Find("joe") == "t1");
  cache.Drop("joe", "t1");
  CHECK(cache.Find("joe").empty());
  cache.Put("joe", "t2", seconds(5));  // would end on the way
  CHECK(cache.Find("joe").empty());
  for (int i = 0; i < 3000; ++i) cache.Put(std::to_string(i), "t", seconds(60));
  CHECK(cache.Find("2999") == "t");
}

}  // namespace
}  // namespace crisp::imaged
