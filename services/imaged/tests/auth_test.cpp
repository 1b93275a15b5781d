#include "services/imaged/registry/auth.h"

#include <catch2/catch.hpp>

#include "cri/v1/api.pb.h"

namespace crisp::imaged {
namespace {

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

TEST_CASE("Credentials are taken in each form the CRI has, for their registry only") {
  runtime::v1::AuthConfig auth;
  auth.set_auth("am9lOnNlY3JldDp4");  // joe:secret:x
  CHECK(CredentialsFor(auth, "example.com")->username == "joe");
  CHECK(CredentialsFor(auth, "example.com")->password == "secret:x");
  auth.set_server_address("https://example.com/v2/");
  CHECK(CredentialsFor(auth, "example.com")->username == "joe");
  CHECK(CredentialsFor(auth, "evil.com")->empty());
  auth.set_server_address("https://index.docker.io/v1/");
  CHECK(CredentialsFor(auth, "docker.io")->username == "joe");
  auth.Clear();
  auth.set_auth("%%%secret");
  const auto bad = CredentialsFor(auth, "example.com");
  CHECK(bad.code() == Code::kInvalidArgument);
  CHECK(bad.status().message().find("secret") == std::string::npos);
  auth.Clear();
  auth.set_registry_token("t");
  CHECK(CredentialsFor(auth, "example.com")->registry_token == "t");
  CHECK(Credentials{}.Fingerprint().empty());
  CHECK(Credentials{.username = "a", .password = "bc"}.Fingerprint() !=
        Credentials{.username = "ab", .password = "c"}.Fingerprint());
}

}  // namespace
}  // namespace crisp::imaged
