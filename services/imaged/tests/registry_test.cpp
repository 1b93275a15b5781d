#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "libs/http/tests/tls_server.h"
#include "services/imaged/tests/fake_registry.h"
#include "services/imaged/tests/node.h"

namespace crisp::imaged {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): what the tests are written in
using std::chrono::seconds;

bool Has(const Result<std::string>& outcome, const std::string& text) {
  return outcome.status().message().find(text) != std::string::npos;
}

/// [[registry]] of `prefix` with mirrors.
std::string Mirrored(const std::string& prefix, const std::vector<std::string>& mirrors,
                     const std::string& more = "") {
  std::string text = "[[registry]]\nlocation = '" + prefix + "'\n";
  for (const std::string& mirror : mirrors)
    text += "[[registry.mirror]]\nlocation = '" + mirror + "'\n" + more;
  return text;
}

TEST_CASE("An image comes from the first mirror that has it, under its own name") {
  LyingRegistry first(TestImage::Make({}));
  LyingRegistry second(TwoLayers());
  LyingRegistry own(TwoLayers());
  first.failures = 1000;
  first.failure = "404 Not Found";
  Node node;
  node.root.Write(
      "etc/registries.conf",
      Mirrored(own.server().HostPort(), {first.server().HostPort(), second.server().HostPort()}));
  const auto id = node.Pull(own.Name());
  REQUIRE(id.status().message() == "");
  CHECK(node.Image(own.Name()).id() == *id);
  CHECK(node.File(*id, 0, "etc/name") == "high");
  CHECK(first.Seen("/manifests/") == 1);
  CHECK(first.Seen("/blobs/") == 0);  // what has no manifest is not asked for blobs first
  CHECK(second.blob_requests == 3);
  CHECK(own.heads.empty());
  node.CheckClean();
}

TEST_CASE("A mirror without the image's signature still gives its layers") {
  LyingRegistry mirror(TwoLayers());
  LyingRegistry own(TwoLayers());
  Node node;
  node.root.Write("etc/registries.conf",
                  Mirrored(own.server().HostPort(), {mirror.server().HostPort()}));
  const auto client =
      RegistryClient::Open(node.client, node.hosts, *ref::Parse(own.Name()), {}).value();
  REQUIRE(client->Manifest(Node::Call(), "latest", MiB(1)).ok());
  CHECK(client->Manifest(Node::Call(), "sha256-abc.sig", MiB(1)).code() == Code::kNotFound);
  const digest::Digest config = *digest::Digest::Parse(mirror.image.config_digest);
  REQUIRE(client->Blob(Node::Call(), config, MiB(1)).ok());
  CHECK(mirror.blob_requests == 1);
  CHECK(own.blob_requests == 0);
}

TEST_CASE("Blobs that a mirror has not or damages come from the next endpoint") {
  LyingRegistry mirror(TwoLayers());
  LyingRegistry own(TwoLayers());
  Node node;
  node.root.Write("etc/registries.conf",
                  Mirrored(own.server().HostPort(), {mirror.server().HostPort()}));
  SECTION("a blob is missing") { mirror.image.blobs.erase(mirror.image.layer_digests[0]); }
  SECTION("the config is another's") { mirror.wrong_blob = mirror.image.config_digest; }
  SECTION("a layer breaks off and the mirror is gone") {
    mirror.cut_blob = mirror.image.layer_digests[0];
    mirror.always_short = true;
  }
  const auto id = node.Pull(own.Name());
  REQUIRE(id.status().message() == "");
  CHECK(own.blob_requests >= 1);
  CHECK(node.File(*id, 1, "etc/name") == "low");
  node.CheckClean();
}

TEST_CASE("When nobody has it each endpoint is named with its reason and its credentials") {
  LyingRegistry mirror(TwoLayers());
  LyingRegistry own(TwoLayers());
  mirror.basic = "bTpw";
  own.failures = 1000;
  Node node;
  node.root.Write("etc/registries.conf",
                  Mirrored(own.server().HostPort(), {mirror.server().HostPort(), "127.0.0.1:1/x"}));
  node.root.Write("etc/auth.json", "{\"auths\": {\"" + mirror.server().HostPort() +
                                       "\": {\"auth\": \"bTp3cm9uZy1wdw==\"}}}");
  const auto id = node.Pull(own.Name(), {.username = "joe", .password = "the-secret"});
  CHECK(id.code() == Code::kUnknown);
  CHECK(id.status().message().starts_with("RegistryUnavailable: " + own.Name()));
  CHECK(Has(id, "mirror " + mirror.server().HostPort() + "/test/image (credentials: " +
                    (node.root / "etc/auth.json") + "): it refuses the credentials"));
  CHECK(Has(id, "mirror 127.0.0.1:1/x/test/image (credentials: not looked for): 127.0.0.1:1: "));
  CHECK(Has(id, "registry " + own.server().HostPort() + " (credentials: the pull request): "));
  CHECK_FALSE(Has(id, "the-secret"));
  CHECK_FALSE(Has(id, "wrong-pw"));
  CHECK(mirror.Seen("Basic am9l") == 0);  // joe's are not for the mirror
}

TEST_CASE("Each endpoint is shown its own credentials") {
  LyingRegistry mirror(TwoLayers());
  LyingRegistry own(TwoLayers());
  mirror.basic = "bTpw";           // m:p
  own.basic = "am9lOnNlY3JldA==";  // joe:secret
  mirror.image.blobs.erase(mirror.image.layer_digests[0]);
  Node node;
  node.root.Write("etc/registries.conf",
                  Mirrored(own.server().HostPort(), {mirror.server().HostPort()}));
  node.root.Write("etc/auth.json", "{\"auths\": {\"" + mirror.server().HostPort() +
                                       "/test\": {\"auth\": \"bTpw\"}}}");
  CHECK(node.Pull(own.Name(), {.username = "joe", .password = "secret"}).status().message() == "");
  CHECK(mirror.Seen("Basic am9l") == 0);
  CHECK(own.Seen("Basic bTpw") == 0);
  CHECK(mirror.Seen("Basic bTpw") > 0);
  CHECK(own.Seen("Basic am9l") > 0);
}

TEST_CASE("The node's own credentials serve pulls that bring none, by file and by helper") {
  LyingRegistry registry(TwoLayers());
  Node node;
  const std::string host = registry.server().HostPort();
  SECTION("a user's") {
    registry.basic = "am9lOnNlY3JldA==";
    node.root.Write("etc/auth.json",
                    "{\"auths\": {\"" + host + "\": {\"auth\": \"am9lOnNlY3JldA==\"}}}");
  }
  SECTION("a refresh token") {
    registry.token = "t1";
    registry.only_refresh = true;
    node.root.Write("etc/auth.json",
                    "{\"auths\": {\"" + host + "\": {\"identitytoken\": \"refresh\"}}}");
  }
  SECTION("a helper's") {
    registry.basic = "am9lOnNlY3JldA==";
    const std::string helper =
        node.root.Write("etc/bin/docker-credential-test",
                        "#!/bin/sh\necho '{\"Username\": \"joe\", \"Secret\": \"secret\"}'\n");
    REQUIRE(::chmod(helper.c_str(), 0755) == 0);
    node.root.Write("etc/auth.json", "{\"credHelpers\": {\"" + host + "\": \"test\"}}");
  }
  CHECK(node.Pull(registry.Name()).status().message() == "");
  // What the pull brings goes before.
  CHECK(node.Pull(registry.Name(), {.username = "ann", .password = "x"}).code() ==
        Code::kUnauthenticated);
  // Changes count at once; a broken file fails the pulls that need it and says where.
  node.root.Write("etc/auth.json", "{\n}");
  CHECK(node.Pull(registry.Name()).code() == Code::kUnauthenticated);
  node.root.Write("etc/auth.json", "{\n oops");
  const auto broken = node.Pull(registry.Name());
  CHECK(broken.code() == Code::kFailedPrecondition);
  CHECK(Has(broken, "etc/auth.json:2: is not JSON"));
}

TEST_CASE("Tokens are used again by who got them, and by nobody else") {
  LyingRegistry registry(TwoLayers());
  registry.token = "the-token";
  Node node;
  const Credentials joe{.username = "joe", .password = "secret"};
  CHECK(node.Pull(registry.Name(), joe).ok());
  CHECK(registry.token_requests == 1);
  CHECK(node.Pull(registry.Name(), joe).ok());
  CHECK(registry.token_requests == 1);
  CHECK(node.Pull(registry.Name(), {.username = "joe", .password = "guess"}).code() ==
        Code::kUnauthenticated);
  CHECK(node.Pull(registry.Name()).code() == Code::kUnauthenticated);
  CHECK(registry.token_requests == 3);
  // A token that the registry stops taking is replaced.
  registry.token = "the-next-token";
  CHECK(node.Pull(registry.Name(), joe).ok());
}

TEST_CASE("A registry that never takes its own tokens is given up") {
  LyingRegistry registry(TwoLayers());
  registry.token = "the-token";
  registry.token_no_use = true;
  Node node;
  const auto id = node.Pull(registry.Name(), {.username = "joe", .password = "secret"});
  CHECK(id.code() == Code::kUnauthenticated);
  CHECK(registry.token_requests <= 3);
  CHECK(registry.Seen("/manifests/") <= 3);
}

TEST_CASE("A token server that is busy or hangs up is asked again") {
  LyingRegistry registry(TwoLayers());
  registry.token = "the-token";
  registry.token_failures = 2;
  Credentials credentials{.username = "joe", .password = "secret"};
  SECTION("too many requests") { registry.failure = "429 Too Many Requests"; }
  SECTION("unavailable") { registry.failure = "503 Busy"; }
  SECTION("it hangs up") { registry.failure = ""; }
  SECTION("it is asked for a refresh token's") {
    registry.only_refresh = true;
    credentials = {.identity_token = "refresh"};
  }
  Node node;
  CHECK(node.Pull(registry.Name(), credentials).status().message() == "");
  CHECK(registry.token_requests == 3);
}

TEST_CASE("A token server on another host is believed by its own authority, or the registry's") {
  http::testing::TlsServer tokens("DNS:localhost", false, [](const std::string&) {
    return RawServer::Ok(R"({"token":"t"})", "Connection: close\r\n");
  });
  const std::string challenge = fmt::format(
      "WWW-Authenticate: Bearer realm=\"https://localhost:{}/token\"\r\n", tokens.port());
  http::testing::TlsServer registry("IP:127.0.0.1", true, [&challenge](const std::string& head) {
    const std::string close = "Connection: close\r\n";
    if (head.find("Authorization: Bearer t\r\n") == std::string::npos)
      return "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n" + challenge + close + "\r\n";
    return RawServer::Ok("{}", close);
  });
  Node node;
  const std::string certs = fmt::format("etc/certs.d/127.0.0.1:{}/", registry.port());
  const std::string theirs = fmt::format("etc/certs.d/localhost:{}/ca.crt", tokens.port());
  node.root.Write(certs + "ours.cert", registry.Pem());
  node.root.Write(certs + "ours.key", registry.KeyPem());
  const auto ask = [&] {
    const std::string name = fmt::format("127.0.0.1:{}/x:1", registry.port());
    const auto client =
        RegistryClient::Open(node.client, node.hosts, *ref::Parse(name), {.username = "joe"});
    REQUIRE(client.ok());
    return (*client)->Manifest(Node::Call(), "1", MiB(1)).status();
  };
  SECTION("its own") {
    node.root.Write(certs + "ca.crt", registry.Pem());
    node.root.Write(theirs, tokens.Pem());
    CHECK(ask().message() == "");
  }
  SECTION("one that the registry's file has too") {
    node.root.Write(certs + "ca.crt", registry.Pem() + tokens.Pem());
    CHECK(ask().message() == "");
  }
  SECTION("none") {
    node.root.Write(certs + "ca.crt", registry.Pem());
    CHECK(ask().message().find("not trusted") != std::string::npos);
    CHECK(tokens.requests() == 0);
  }
  CHECK(registry.with_certificate() == registry.requests());
  CHECK(tokens.with_certificate() == 0);
}

TEST_CASE("A registry that says when to come again is obeyed") {
  LyingRegistry registry(TwoLayers());
  registry.failures = 1;
  registry.failure = "429 Too Many Requests";
  registry.failure_headers = "Retry-After: 1\r\n";
  Node node;
  const auto start = std::chrono::steady_clock::now();
  CHECK(node.Pull(registry.Name()).status().message() == "");
  CHECK(std::chrono::steady_clock::now() - start >= seconds(1));
  registry.failures = 1000;
  registry.failure_headers = "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\n";  // long past
  const auto stormed = node.Pull(registry.Name());
  CHECK(stormed.code() == Code::kUnknown);
  CHECK(stormed.status().message().starts_with("RegistryUnavailable: "));
  CHECK(Has(stormed, "answers with status 429"));
}

TEST_CASE("A redirect to a blob store goes without the credentials") {
  LyingRegistry store(TwoLayers());
  LyingRegistry registry(TwoLayers());
  registry.redirect_blobs = "http://" + store.server().HostPort();
  registry.token = "the-token";
  Node node;
  CHECK(node.Pull(registry.Name(), {.username = "joe", .password = "secret"}).ok());
  CHECK(store.blob_requests == 3);
  CHECK(store.Seen("uthorization") == 0);
  CHECK(store.Seen("secret") == 0);
}

TEST_CASE("Whoever a redirect leads to cannot ask for the credentials") {
  const bool manifests = GENERATE(false, true);
  LyingRegistry registry(TwoLayers());
  // It asks for a password, or names a token server of its own.
  LyingRegistry thief(TwoLayers());
  Node node;
  Credentials credentials{.username = "joe", .password = "secret"};
  SECTION("a password, by Basic") { thief.basic = "never"; }
  SECTION("a password, by a token server") { thief.token = "never"; }
  SECTION("a refresh token") {
    thief.token = "never";
    thief.only_refresh = true;
    credentials = {.identity_token = "refresh"};
  }
  SECTION("a bearer token") {
    thief.token = "never";
    credentials = {.registry_token = "bearer-secret"};
  }
  (manifests ? registry.redirect_manifests : registry.redirect_blobs) =
      "http://" + thief.server().HostPort();
  const auto id = node.Pull(registry.Name(), credentials);
  CHECK(id.code() == Code::kUnauthenticated);
  CHECK(Has(id, "leads to " + thief.server().HostPort() + ", which refuses access"));
  CHECK(thief.heads.size() == 1);  // not even a second try
  CHECK(thief.token_requests == 0);
  for (const char* secret : {"uthorization", "joe", "secret", "refresh"})
    CHECK(thief.Seen(secret) == 0);
  node.CheckClean();
}

TEST_CASE("hosts.toml: mirrors are told whom they stand in for, with headers of their own") {
  LyingRegistry mirror(TwoLayers());
  LyingRegistry own(TwoLayers());
  Node node;
  node.root.Write("etc/hosts.d/" + own.server().HostPort() + "/hosts.toml",
                  "[host.'http://" + mirror.server().HostPort() +
                      "']\ncapabilities = ['pull']\n[host.'http://" + mirror.server().HostPort() +
                      "'.header]\nX-Who = 'crisp'\n");
  REQUIRE(node.Pull(own.Name()).status().message() == "");
  // The tag comes from the registry itself, what has a digest from the mirror.
  CHECK(own.manifest_requests == 1);
  CHECK(own.blob_requests == 0);
  CHECK(mirror.manifest_requests == 0);
  CHECK(mirror.blob_requests == 3);
  CHECK(mirror.Seen("X-Who: crisp") == 3);
  CHECK(mirror.Seen("?ns=127.0.0.1%3A") == 3);
  CHECK(own.Seen("X-Who") == 0);
}

TEST_CASE("Blocked, rewritten and short names") {
  LyingRegistry registry(TwoLayers());
  const std::string host = registry.server().HostPort();
  Node node;
  node.root.Write("etc/registries.conf", R"(
unqualified-search-registries = ["127.0.0.1:1", ")" +
                                             host + R"("]
[[registry]]
prefix = "blocked.example"
location = "blocked.example"
blocked = true
[[registry]]
prefix = "docker.io/library"
location = ")" + host + R"(/test"
[[registry]]
prefix = "*.corp.example"
location = ")" + host + R"("
[aliases]
"pet" = ")" + host + R"(/test/image"
)");
  const auto blocked = node.Pull("blocked.example/x");
  CHECK(blocked.code() == Code::kPermissionDenied);
  CHECK(Has(blocked, "is blocked by "));
  CHECK(Has(blocked, "etc/registries.conf:3"));
  CHECK(node.Pull("docker.io/library/image").status().message() == "");
  CHECK(node.Image("docker.io/library/image").repo_tags(0) == "docker.io/library/image:latest");
  CHECK(node.Pull("a.corp.example/test/image").status().message() == "");
  // A short name is found again under whichever of its names is here.
  CHECK(node.Image("pet").id().empty());
  CHECK(node.Pull("pet").status().message() == "");
  CHECK(node.Image("pet").repo_tags_size() == 3);
  CHECK(node.Pull("test/image").status().message() == "");
  CHECK(node.Image("test/image").id() == node.Image("pet").id());
  const auto nowhere = node.Pull("test/nothing");
  CHECK(nowhere.code() == Code::kNotFound);
  CHECK(Has(nowhere, "127.0.0.1:1/test/nothing:latest"));
  CHECK(Has(nowhere, host + "/test/nothing:latest"));
}

constexpr const char* kIndexType = "application/vnd.oci.image.index.v1+json";

/// An index of one entry, which is an index when `type` says so.
std::string IndexOf(const std::string& type, const std::string& digest) {
  const nlohmann::json entry = {{"mediaType", type}, {"digest", digest}, {"size", 1}};
  nlohmann::json index = {{"schemaVersion", 2}, {"mediaType", kIndexType}};
  index["manifests"].push_back(entry);
  return index.dump();
}

TEST_CASE("Indexes in indexes are followed, but not for ever") {
  LyingRegistry registry(TwoLayers());
  Node node;
  std::string digest = registry.image.manifest_digest;
  std::string type = registry.image.manifest_type;
  std::vector<std::string> levels;
  for (int depth = 0; depth < 6; ++depth) {
    digest = registry.Serve(kIndexType, IndexOf(type, digest));
    type = kIndexType;
    levels.push_back(digest);
  }
  CHECK(*node.Pull(registry.Name("@" + levels[0])) == registry.image.config_digest);
  CHECK(*node.Pull(registry.Name("@" + levels[3])) == registry.image.config_digest);
  const auto deep = node.Pull(registry.Name("@" + levels[4]));
  CHECK(deep.code() == Code::kInvalidArgument);
  CHECK(Has(deep, "nested deeper than 4"));
  // Many indexes that lead nowhere.
  nlohmann::json wide = {{"schemaVersion", 2}, {"manifests", nlohmann::json::array()}};
  for (int i = 0; i < 40; ++i) {
    const nlohmann::json empty = {{"schemaVersion", 2},
                                  {"manifests", nlohmann::json::array()},
                                  {"annotations", {{"n", std::to_string(i)}}}};
    wide["manifests"].push_back({{"mediaType", kIndexType},
                                 {"digest", registry.Serve(kIndexType, empty.dump())},
                                 {"size", 1}});
  }
  const auto many = node.Pull(registry.Name("@" + registry.Serve(kIndexType, wide.dump())));
  CHECK(Has(many, "lead to more than 16 documents"));
}

TEST_CASE("An image of Docker's first format is converted") {
  const TestImage image = TwoLayers();
  LyingRegistry registry(image);
  nlohmann::json old = {{"schemaVersion", 1}, {"name", "test/image"}, {"architecture", "amd64"}};
  const auto layer = [&old](const std::string& blob, const nlohmann::json& compatible) {
    old["fsLayers"].push_back({{"blobSum", blob}});
    old["history"].push_back({{"v1Compatibility", compatible.dump()}});
  };
  layer(image.layer_digests[1], {{"id", "b"}, {"config", {{"User", "1000:100"}}}});
  layer(image.layer_digests[1], {{"id", "e"}, {"throwaway", true}});
  layer(image.layer_digests[0], {{"id", "a"}});
  registry.documents["old"] = {"application/vnd.docker.distribution.manifest.v1+json", old.dump()};
  Node node;
  const auto id = node.Pull(registry.Name(":old"));
  REQUIRE(id.status().message() == "");
  CHECK(node.File(*id, 0, "etc/name") == "high");
  CHECK(node.File(*id, 1, "etc/name") == "low");
  CHECK(node.Image(*id).uid().value() == 1000);
  CHECK(*node.Pull(registry.Name(":old")) == *id);
  node.CheckClean();
  // Its layers are the same as those of the image in a later format.
  const int before = registry.blob_requests;
  CHECK(node.Pull(registry.Name()).ok());
  CHECK(registry.blob_requests == before + 1);  // the config
  // A layer that is not what it is called.
  LyingRegistry lying(image);
  lying.documents = registry.documents;
  lying.wrong_blob = image.layer_digests[0];
  Node other;
  CHECK(other.Pull(lying.Name(":old")).code() == Code::kDataLoss);
  other.CheckClean();
}

TEST_CASE("A foreign layer comes from its registry or not at all") {
  TestImage image = TwoLayers();
  nlohmann::json manifest = nlohmann::json::parse(image.manifest);
  LyingRegistry elsewhere(image);
  manifest["layers"][0]["mediaType"] =
      "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
  manifest["layers"][0]["urls"].push_back("http://" + elsewhere.server().HostPort() +
                                          "/v2/test/image/blobs/" + image.layer_digests[0]);
  image.manifest = manifest.dump();
  image.manifest_digest = "sha256:" + digest::Sha256Hex(image.manifest);
  LyingRegistry registry(image);
  Node node;
  SECTION("the registry has it") { CHECK(node.Pull(registry.Name()).status().message() == ""); }
  SECTION("the registry has it not") {
    registry.image.blobs.erase(image.layer_digests[0]);
    const auto id = node.Pull(registry.Name());
    CHECK(id.code() == Code::kNotFound);
    CHECK(Has(id, "is a foreign one"));
  }
  CHECK(elsewhere.heads.empty());
  node.CheckClean();
}

}  // namespace
}  // namespace crisp::imaged
