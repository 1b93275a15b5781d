#include "services/imaged/registry/auth_files.h"

#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "libs/testing/test_root.h"
#include "services/imaged/registry/credential_helper.h"

namespace crisp::imaged {
namespace {

CallContext Soon() { return CallContext::Background(std::chrono::seconds(20)); }

/// Whose credentials they are, and from where.
std::string Found(const AuthFiles& files, const std::string& location,
                  const std::vector<std::string>& helpers = {}) {
  const Result<FoundCredentials> found = files.Find(Soon(), location, helpers);
  if (!found.ok()) return "error: " + found.status().message();
  const Credentials& credentials = found->credentials;
  const std::string who = credentials.identity_token.empty()
                              ? credentials.username + ":" + credentials.password
                              : "token " + credentials.identity_token;
  return found->source == "none" ? "none" : who + " by " + found->source;
}

void WriteHelper(const crisp::testing::TestRoot& root, const std::string& name,
                 const std::string& script) {
  const std::string path =
      root.Write("bin/docker-credential-" + name, "#!/bin/sh\nread server\n" + script);
  REQUIRE(::chmod(path.c_str(), 0755) == 0);
}

TEST_CASE("An auth file is asked for the longest namespace that it knows") {
  const crisp::testing::TestRoot root;
  const std::string file = root.Write("auth.json", R"({"auths": {
    "quay.io": {"auth": "aG9zdDpw"},
    "quay.io/team": {"auth": "dGVhbTpw"},
    "quay.io/team/app": {"username": "app", "password": "p"},
    "https://index.docker.io/v1/": {"auth": "aHViOnA="},
    "http://plain.example:5000/v2/": {"auth": "cGxhaW46cA=="},
    "empty.example": {}, "null.example": null,
    "acr.example": {"auth": "MDAwMDo=", "identitytoken": "refresh"}}})");
  const AuthFiles files({root / "absent.json", file}, {});
  CHECK(Found(files, "quay.io/x") == "host:p by " + file);
  CHECK(Found(files, "quay.io/team/x") == "team:p by " + file);
  CHECK(Found(files, "quay.io/team/app") == "app:p by " + file);
  CHECK(Found(files, "quay.io/team/app/deeper") == "app:p by " + file);
  CHECK(Found(files, "quay.io/teams") == "host:p by " + file);
  CHECK(Found(files, "docker.io/library/busybox") == "hub:p by " + file);
  CHECK(Found(files, "plain.example:5000/x") == "plain:p by " + file);
  CHECK(Found(files, "plain.example/x") == "none");
  CHECK(Found(files, "empty.example/x") == "none");
  CHECK(Found(files, "null.example/x") == "none");
  CHECK(Found(files, "acr.example/x") == "token refresh by " + file);
  CHECK(Found(files, "evil.example/quay.io/team") == "none");
}

TEST_CASE("The first file that knows the registry wins, and changes count at once") {
  const crisp::testing::TestRoot root;
  const std::string one = root.Write("1.json", R"({"auths": {"a.example": {"auth": "YTpw"}}})");
  const std::string two = root.Write("2.json", R"({"auths": {"a.example/x": {"auth": "YjpwCg=="},
                                         "b.example": {"auth": "YjpwCg=="}}})");
  const AuthFiles files({one, two}, {});
  CHECK(Found(files, "a.example/x") == "a:p by " + one);
  CHECK(Found(files, "b.example/x") == "b:p\n by " + two);
  root.Write("1.json", "{}");
  CHECK(Found(files, "a.example/x") == "b:p\n by " + two);
}

TEST_CASE("A broken auth file is named, and nothing of it is shown") {
  const crisp::testing::TestRoot root;
  const AuthFiles files({root / "auth.json"}, {});
  const auto message = [&](const std::string& text) {
    root.Write("auth.json", text);
    const auto found = files.Find(Soon(), "a.example/x", {});
    CHECK(found.code() == Code::kFailedPrecondition);
    CHECK(found.status().message().find("secret") == std::string::npos);
    return found.status().message();
  };
  const std::string file = root / "auth.json";
  CHECK(message("{\n\"auths\": secret}") == "auth file " + file + ":2: is not JSON");
  CHECK(message(R"({"auths": "secret"})").find("auths: an object") != std::string::npos);
  CHECK(message(R"({"auths": {"a.example": {"auth": "%secret"}}})").find("auths.a.example") !=
        std::string::npos);
  CHECK(message(R"({"auths": {"a.example": {"username": 5}}})").find("username") !=
        std::string::npos);
  CHECK(message(R"({"credHelpers": {"a.example": 5}})").find("credHelpers.a.example") !=
        std::string::npos);
  CHECK(message(R"({"credsStore": ["secret"]})").find("credsStore") != std::string::npos);
}

TEST_CASE("A broken entry concerns its registry alone") {
  const crisp::testing::TestRoot root;
  const std::string file = root.Write("auth.json", R"({
    "auths": {"a.example": {"auth": "%secret"}, "b.example": {"auth": "YjpwCg=="}},
    "credHelpers": {"c.example": 5, "b.example": ""}, "credsStore": "desktop"})");
  const AuthFiles files({file}, {root / "bin"});
  CHECK(Found(files, "a.example/x") ==
        "error: auth file " + file +
            ": auths.a.example: the credentials' auth field is not base64 of user:password");
  CHECK(Found(files, "b.example/x") == "b:p\n by " + file);
  CHECK(Found(files, "c.example/x") ==
        "error: auth file " + file + ": credHelpers.c.example: a string is expected");
  CHECK(Found(files, "d.example/x") == "none");  // there is no docker-credential-desktop
}

TEST_CASE("Credential helpers are asked by their protocol") {
  const crisp::testing::TestRoot root;
  WriteHelper(root, "good",
              R"(echo "{\"ServerURL\":\"$server\",\"Username\":\"u\",\"Secret\":\"$server $1\"}")");
  WriteHelper(root, "token", R"(echo '{"Username":"<token>","Secret":"refresh"}')");
  WriteHelper(root, "none", "echo 'credentials not found in native keychain'; exit 1");
  WriteHelper(root, "broken", "echo secret; echo secret >&2; exit 3");
  WriteHelper(root, "nonsense", "echo '{secret'");
  const std::string file = root.Write("auth.json", R"({
    "auths": {"b.example": {"auth": "YjpwCg=="}},
    "credHelpers": {"a.example": "good", "t.example": "token", "n.example": "none",
                    "x.example": "broken", "y.example": "nonsense", "z.example": "absent",
                    "a.example/ns": "token", "p.example": "../../evil", "docker.io": "good"}})");
  const std::vector<std::string> dirs = {root / "nowhere", root / "bin"};
  const AuthFiles files({file}, dirs);
  CHECK(Found(files, "a.example/x") == "u:a.example get by credential helper good");
  CHECK(Found(files, "docker.io/x") ==
        "u:https://index.docker.io/v1/ get by credential helper good");
  CHECK(Found(files, "a.example/ns/x") == "token refresh by credential helper token");
  CHECK(Found(files, "t.example/x") == "token refresh by credential helper token");
  CHECK(Found(files, "n.example/x") == "none");
  CHECK(Found(files, "x.example/x") == "error: the credential helper broken ends with code 3");
  CHECK(Found(files, "y.example/x") ==
        "error: the credential helper nonsense does not answer JSON");
  CHECK(Found(files, "z.example/x").find("there is no docker-credential-absent in ") !=
        std::string::npos);
  CHECK(Found(files, "p.example/x").find("is no name of a credential helper") != std::string::npos);
  CHECK(Found(files, "u.example/x") == "none");

  SECTION("a store knows all registries, after what the file itself says") {
    const std::string store =
        root.Write("store.json", R"({"auths": {"a.example": {}, "b.example": {"auth": "YjpwCg=="}},
                          "credsStore": "good"})");
    const AuthFiles with_store({store}, dirs);
    CHECK(Found(with_store, "a.example/x") == "u:a.example get by credential helper good");
    CHECK(Found(with_store, "b.example/x") == "b:p\n by " + store);
  }
  SECTION("registries.conf may name helpers for all, in an order with the files") {
    CHECK(Found(files, "b.example/x", {"good", "containers-auth.json"}) ==
          "u:b.example get by credential helper good");
    CHECK(Found(files, "b.example/x", {"none", "containers-auth.json"}) == "b:p\n by " + file);
    CHECK(Found(files, "b.example/x", {"none"}) == "none");
  }
}

}  // namespace
}  // namespace crisp::imaged
