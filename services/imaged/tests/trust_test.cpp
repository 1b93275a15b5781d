// policy.json: what it may say, whom it lets in, and signatures of both kinds by real tools.
#include "services/imaged/trust/trust.h"

#include <catch2/catch.hpp>

#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/testing/test_root.h"
#include "services/imaged/tests/signer.h"
#include "services/imaged/trust/gpg.h"

namespace crisp::imaged {
namespace {

using nlohmann::json;

using testing::Ref;
using testing::Signer;
using testing::Soon;

const std::string kHex(64, 'a');

std::string PolicyError(const std::string& text) {
  const Result<Policy> policy = Policy::Parse(text);
  return policy.ok() ? "" : std::string(policy.status().message());
}

TEST_CASE("A policy that is not understood as a whole is refused, by the key") {
  const auto with = [](const std::string& requirement) {
    return PolicyError(R"({"default":[{"type":"reject"}],"transports":{"docker":{"q.io/x":[)" +
                       requirement + "]}}}");
  };
  CHECK(PolicyError(R"({"default":[{"type":"insecureAcceptAnything"}]})").empty());
  CHECK(PolicyError("{}") == "default is missing");
  CHECK(PolicyError("[]") != "");
  CHECK(PolicyError(R"({"default":[]})") == "default: an empty list of requirements");
  CHECK(PolicyError(R"({"default":[{"type":"reject"}],"defualt":[]})") == "unknown key defualt");
  CHECK(PolicyError(R"({"default":[{"type":"reject","x":1}]})") ==
        "default: requirement 0: unknown key x");
  CHECK(PolicyError(R"({"default":[{"type":"reject"}],"default":[]})") ==
        "JSON: the key default is there twice");
  CHECK(PolicyError(R"({"default":[{"type":"reject"}],"transports":{"docker":{
          "q.io/x":[{"type":"reject"}], "Q.IO/x":[{"type":"insecureAcceptAnything"}]}}})") ==
        "q.io/x is there twice");
  CHECK(with(R"({"type":"maybe"})") ==
        "transports.docker, q.io/x: requirement 0: unknown type maybe");
  CHECK(with(R"({"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"})").empty());
  CHECK(with(R"({"type":"signedBy","keyType":"GPGKeys"})") != "");
  CHECK(with(R"({"type":"signedBy","keyType":"X509","keyPath":"/k"})") != "");
  CHECK(with(R"({"type":"signedBy","keyType":"GPGKeys","keyPath":"k"})") != "");
  CHECK(with(R"({"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keyData":"aaaa"})") != "");
  CHECK(with(R"({"type":"signedBy","keyType":"GPGKeys","keyData":"!"})") != "");
  CHECK(with(R"({"type":"sigstoreSigned","keyPaths":["/a","/b"]})").empty());
  CHECK(with(R"({"type":"sigstoreSigned"})") != "");
  CHECK(with(R"({"type":"sigstoreSigned","fulcio":{},"keyPath":"/a"})") != "");
  const std::string log = R"("rekorPublicKeyPath":"/r")";
  const auto fulcio = [&](const std::string& text, const std::string& more) {
    return with(R"({"type":"sigstoreSigned","fulcio":{)" + text + "}" + more + "}");
  };
  const std::string whole = R"("caPath":"/c","oidcIssuer":"https://i","subjectEmail":"a@b")";
  CHECK(fulcio(whole, "," + log).empty());
  CHECK(fulcio(whole, "").find("fulcio needs a rekorPublicKey") != std::string::npos);
  CHECK(fulcio(whole, "," + log + R"(,"rekorPublicKeyData":"YQ==")") != "");
  CHECK(fulcio(whole + R"(,"caData":"YQ==")", "," + log).find("caPath and caData") !=
        std::string::npos);
  CHECK(fulcio(R"("caPath":"/c","subjectEmail":"a@b")", "," + log).find("oidcIssuer") !=
        std::string::npos);
  CHECK(fulcio(R"("caPath":"/c","oidcIssuer":"","subjectEmail":"a@b")", "," + log) != "");
  CHECK(fulcio(R"("caPath":"c","oidcIssuer":"i","subjectEmail":"a@b")", "," + log)
            .ends_with("fulcio: caPath c is not absolute"));
  const auto pki = [&](const std::string& text) {
    return with(R"({"type":"sigstoreSigned","pki":{)" + text + "}}");
  };
  CHECK(pki(R"("caRootsPath":"/c","subjectHostname":"h")").empty());
  CHECK(pki(R"("caRootsData":"YQ==","caIntermediatesPath":"/i","subjectEmail":"a@b")").empty());
  CHECK(pki(R"("caRootsPath":"/c")").ends_with("subjectEmail or subjectHostname is needed"));
  CHECK(pki(R"("subjectEmail":"a@b")") != "");
  CHECK(pki(R"("caRootsPath":"/c","oidcIssuer":"i","subjectEmail":"a@b")") != "");
  const auto identity = [&with](const std::string& text) {
    return with(R"({"type":"sigstoreSigned","keyPath":"/k","signedIdentity":)" + text + "}");
  };
  CHECK(identity(R"({"type":"matchExact"})").empty());
  CHECK(identity(R"({"type":"exactReference"})") != "");
  CHECK(identity(R"({"type":"exactReference","dockerReference":"UPPER"})") != "");
  CHECK(identity(R"({"type":"remapIdentity","prefix":"a","signedPrefix":""})") != "");
  CHECK(identity(R"({"type":"matchRepository","prefix":"a"})") != "");
}

TEST_CASE("The most specific scope decides") {
  const Policy policy = Policy::Parse(R"({"default":[{"type":"reject"}],"transports":{
    "docker-daemon":{"":[{"type":"reject"}]},
    "docker":{
    "q.io/a/b:1":[{"type":"reject"}], "q.io/a/b":[{"type":"reject"}], "q.io/a":[{"type":"reject"}],
    "Q.io":[{"type":"reject"}], "*.R.org":[{"type":"reject"}], "*.org":[{"type":"reject"}],
    "local:5000":[{"type":"reject"}], "docker.io/library/busybox":[{"type":"reject"}],
    "":[{"type":"insecureAcceptAnything"}]}}})")
                            .value();
  const auto scope = [&policy](const std::string& name) { return policy.For(Ref(name)).scope; };
  CHECK(scope("q.io/a/b:1") == "q.io/a/b:1");
  CHECK(scope("q.io/a/b:2") == "q.io/a/b");
  CHECK(scope("q.io/a/b:1@sha256:" + kHex) == "q.io/a/b");
  CHECK(scope("q.io/a/c/d") == "q.io/a");
  CHECK(scope("q.io/ab/c") == "q.io");
  CHECK(scope("Q.IO/a/b:1") == "q.io/a/b:1");
  CHECK(scope("x.r.org/a") == "*.r.org");
  CHECK(scope("x.y.r.org:80/a") == "*.r.org");
  CHECK(scope("r.org/a") == "*.org");
  CHECK(scope("local:5000/a") == "local:5000");
  CHECK(scope("local:5001/a") == "the default of docker");
  CHECK(scope("busybox") == "docker.io/library/busybox");
  CHECK(Policy::Parse(R"({"default":[{"type":"reject"}]})")->For(Ref("a.b/c")).scope == "default");
}

TEST_CASE("What a signature is for must fit what was asked for") {
  using Kind = SignedIdentity::Kind;
  const std::string digest = "q.io/a@sha256:" + kHex;
  const auto fits = [](Kind kind, const std::string& asked, const std::string& named,
                       const std::string& reference = "") {
    SignedIdentity identity;
    identity.kind = kind;
    identity.reference = reference;
    return identity.Matches(Ref(asked), named);
  };
  CHECK(fits(Kind::kMatchExact, "q.io/a:1", "q.io/a:1"));
  CHECK_FALSE(fits(Kind::kMatchExact, "q.io/a:1", "q.io/a:2"));
  CHECK_FALSE(fits(Kind::kMatchExact, "q.io/a", "q.io/a"));  // no tag is not "latest"
  CHECK(fits(Kind::kMatchExact, digest, digest));
  CHECK_FALSE(fits(Kind::kMatchExact, digest, "q.io/a:1"));
  CHECK(fits(Kind::kMatchRepoDigestOrExact, digest, "q.io/a:1"));
  CHECK_FALSE(fits(Kind::kMatchRepoDigestOrExact, digest, "q.io/b:1"));
  CHECK_FALSE(fits(Kind::kMatchRepoDigestOrExact, digest, "q.io/a"));
  CHECK(fits(Kind::kMatchRepoDigestOrExact, "q.io/a:1", "q.io/a:1"));
  CHECK_FALSE(fits(Kind::kMatchRepoDigestOrExact, "q.io/a:1", "q.io/a:2"));
  CHECK(fits(Kind::kMatchRepository, "q.io/a:1", "q.io/a"));
  CHECK_FALSE(fits(Kind::kMatchRepository, "q.io/a:1", "q.io/a/b"));
  CHECK(fits(Kind::kExactReference, "q.io/a:1", "o.io/x:3", "o.io/x:3"));
  CHECK_FALSE(fits(Kind::kExactReference, "q.io/a:1", "q.io/a:1", "o.io/x:3"));
  CHECK(fits(Kind::kExactRepository, "q.io/a:1", "o.io/x:9", "o.io/x"));
  CHECK_FALSE(fits(Kind::kExactRepository, "q.io/a:1", "q.io/a:1", "o.io/x"));
  CHECK_FALSE(fits(Kind::kMatchRepository, "q.io/a:1", "NOT A NAME"));
  SignedIdentity remap;
  remap.kind = Kind::kRemapIdentity;
  remap.prefix = "mirror.io/q";
  remap.signed_prefix = "q.io";
  CHECK(remap.Matches(Ref("mirror.io/q/a:1"), "q.io/a:1"));
  CHECK_FALSE(remap.Matches(Ref("mirror.io/q/a:1"), "mirror.io/q/a:1"));
  CHECK_FALSE(remap.Matches(Ref("mirror.io/qq/a:1"), "q.io/a:1"));
  CHECK(remap.Matches(Ref("other.io/a:1"), "other.io/a:1"));
}

TEST_CASE("A signed claim says what it must and nothing else") {
  const json good = {{"critical",
                      {{"type", kSimpleType},
                       {"image", {{"docker-manifest-digest", "sha256:x"}}},
                       {"identity", {{"docker-reference", "q.io/a:1"}}}}},
                     {"optional", {{"creator", "me"}}}};
  REQUIRE(ParseClaim(good.dump(), kSimpleType).ok());
  CHECK(ParseClaim(good.dump(), kSimpleType)->reference == "q.io/a:1");
  CHECK_FALSE(ParseClaim(good.dump(), kSigstoreType).ok());
  for (const char* pointer : {"/critical/type", "/critical/image", "/critical/identity",
                              "/critical/image/docker-manifest-digest",
                              "/critical/identity/docker-reference", "/critical"}) {
    json bad = good;
    const json::json_pointer at(pointer);
    bad[at.parent_pointer()].erase(at.back());
    CHECK_FALSE(ParseClaim(bad.dump(), kSimpleType).ok());
    bad = good;
    bad[at] = 7;
    CHECK_FALSE(ParseClaim(bad.dump(), kSimpleType).ok());
  }
  json more = good;
  more["critical"]["extra"] = 1;
  CHECK_FALSE(ParseClaim(more.dump(), kSimpleType).ok());
  CHECK_FALSE(ParseClaim("", kSimpleType).ok());
  std::string twice = good.dump();
  twice.insert(1, R"("critical":{},)");
  CHECK_FALSE(ParseClaim(twice, kSimpleType).ok());
}

TEST_CASE("registries.d says where signatures lie") {
  const crisp::testing::TestRoot root;
  CHECK(Lookaside::Load(root / "absent")->For("q.io/a") == "file:///var/lib/containers/sigstore");
  root.Write("d/a.yaml",
             "default-docker:\n  lookaside: https://all.io/sigs\n"
             "docker:\n  q.io/a:\n    sigstore: file:///old\n");
  root.Write("d/b.yaml",
             "docker:\n  q.io/a/b:\n    lookaside: https://b.io\n"
             "    use-sigstore-attachments: true\n");
  root.Write("d/ignored", "nonsense");
  const Lookaside lookaside = Lookaside::Load(root / "d").value();
  CHECK(lookaside.For("q.io/a/b/c") == "https://b.io");
  CHECK(lookaside.For("q.io/a/x") == "file:///old");
  CHECK(lookaside.For("q.io/ab") == "https://all.io/sigs");
  CHECK(lookaside.LocalPaths() == std::vector<std::string>{"/old"});
  root.Write("d/c.yaml", "docker:\n  q.io:\n    lookasid: x\n");
  CHECK(Lookaside::Load(root / "d").code() == Code::kInvalidArgument);
}

TEST_CASE("No policy at the usual place accepts anything, one that cannot be read nothing") {
  Signer signer;
  CHECK(signer.Refusal("q.io/a:1").empty());
  signer.root.Write("policy.json", "{");
  CHECK(signer.Refusal("q.io/a:1").starts_with("SignatureValidationFailed: policy "));
  signer.SetPolicy(R"({"type":"insecureAcceptAnything"})");
  CHECK(signer.Refusal("q.io/a:1").empty());
  CHECK(signer.Refusal("q.io/b:1") ==
        "SignatureValidationFailed: q.io/b:1 (policy scope default): the policy rejects it");
  Trust strict({.policy = signer.root / "none.json", .policy_may_be_absent = false}, signer.client,
               signer.clock);
  CHECK(strict.CheckKept(Soon(), Ref("q.io/a"), {}, {})
            .message()
            .starts_with("SignatureValidationFailed"));
}

TEST_CASE("signedBy wants a good signature by a key of the policy, over this manifest and name") {
  Signer signer;
  const std::string alice = signer.MakeGpgKey("alice@x");
  const std::string mallory = signer.MakeGpgKey("mallory@x");
  signer.SetPolicy(R"({"type":"signedBy","keyType":"GPGKeys","keyPath":")" + alice + "\"}");
  const std::string good = signer.Claim(kSimpleType, "q.io/a:1");
  CHECK(signer.Refusal("q.io/a:1").ends_with("there is no signature"));
  signer.SignSimple("mallory@x", good);
  CHECK(signer.Refusal("q.io/a:1").find("is not good") != std::string::npos);
  signer.SignSimple("alice@x", good, 2);
  const auto pulled = signer.Pull("q.io/a:1");
  REQUIRE(pulled.ok());
  CHECK(pulled->size() == 1);  // mallory's is not kept
  CHECK(signer.Refusal("q.io/a:2").find("it is for q.io/a:1") != std::string::npos);
  CHECK(signer.Refusal("q.io/a@" + signer.digest.str()).empty());
  signer.SignSimple("alice@x", signer.Claim(kSimpleType, "q.io/a:1", "sha256:" + kHex), 2);
  CHECK(signer.Refusal("q.io/a:1").find("it signs the manifest sha256:aaa") != std::string::npos);
  signer.SignSimple("alice@x", "{}", 2);
  CHECK(signer.Refusal("q.io/a:1").find("critical is missing") != std::string::npos);
  signer.root.Write(fmt::format("sigs/q.io/a@sha256={}/signature-1", signer.digest.hex()),
                    "no message");
  CHECK(signer.Refusal("q.io/a:1").find("signature 1: ") != std::string::npos);
  // Kept signatures decide again, and a new policy by them.
  const std::vector<digest::Digest> manifests = {signer.digest};
  std::vector<Signature> kept;
  for (const Signature& each : *pulled) kept.push_back(*DecodeSignature(EncodeSignature(each)));
  CHECK(signer.trust.CheckKept(Soon(), Ref("q.io/a:1"), manifests, kept).ok());
  CHECK_FALSE(signer.trust.CheckKept(Soon(), Ref("q.io/a:1"), manifests, {}).ok());
  CHECK_FALSE(signer.trust.CheckKept(Soon(), std::nullopt, manifests, kept).ok());
  signer.SetPolicy(R"({"type":"signedBy","keyType":"GPGKeys","keyPaths":[")" + alice +
                   "\"]},{\"type\":\"reject\"}");
  CHECK_FALSE(signer.trust.CheckKept(Soon(), Ref("q.io/a:1"), manifests, kept).ok());
  signer.SetPolicy(R"({"type":"signedBy","keyType":"GPGKeys","keyPath":"/nowhere"})");
  CHECK(signer.Refusal("q.io/a:1").starts_with("SignatureValidationFailed: q.io/a:1"));
  // A home of gpg's goes with each decision.
  const std::vector<std::string> names = os::ListDir(signer.root.path()).value();
  for (const std::string& name : names) CHECK_FALSE(name.starts_with("gpg-"));
}

TEST_CASE("A signature may not unpack to more than it could ever say, nor take for ever") {
  Signer signer;
  const std::string alice = signer.MakeGpgKey("alice@x");
  signer.SetPolicy(R"({"type":"signedBy","keyType":"GPGKeys","keyPath":")" + alice + "\"}");
  signer.SignSimple("alice@x", std::string(32U << 20U, ' '));
  CHECK(signer.Refusal("q.io/a:1").find("unpacks to more than") != std::string::npos);
  signer.root.Write(fmt::format("sigs/q.io/a@sha256={}/signature-1", signer.digest.hex()),
                    std::string(65U << 10U, 'x'));
  CHECK(signer.Refusal("q.io/a:1").find("SignatureValidationFailed") != std::string::npos);
  const CallContext over = CallContext::Background(std::chrono::seconds(0));
  CHECK(signer.trust.CheckKept(over, Ref("q.io/a:1"), {signer.digest}, {}).code() ==
        Code::kDeadlineExceeded);
  // A key that gpg has by other ways than the policy is none of its keys.
  const std::string key = os::ReadFile(alice).value();
  const GpgKeys keys = GpgKeys::Import(Soon(), signer.root.path(), {key}).value();
  const std::string text =
      signer.Gpg({"--local-user", "alice@x", "--sign", "--output", "-"}, "yes");
  CHECK(*keys.Verify(Soon(), text) == "yes");
}

TEST_CASE("sigstoreSigned takes cosign's attachments by any of the keys") {
  Signer signer;
  const std::string key = signer.MakeCosignKey("cosign");
  const std::string other = signer.MakeCosignKey("other");
  const std::string identity = R"(,"signedIdentity":{"type":"matchRepository"}})";
  signer.SetPolicy(R"({"type":"sigstoreSigned","keyPath":")" + key + "\"" + identity);
  CHECK(signer.Refusal("q.io/a:1").ends_with("there is no signature"));
  signer.SignCosign("cosign", signer.Claim(kSigstoreType, "q.io/a"));
  CHECK(signer.Refusal("q.io/a:1").empty());
  signer.SetPolicy(R"({"type":"sigstoreSigned","keyPath":")" + other + "\"" + identity);
  CHECK(signer.Refusal("q.io/a:1").find("by none of the keys") != std::string::npos);
  signer.SetPolicy(R"({"type":"sigstoreSigned","keyPaths":[")" + other + "\",\"" + key + "\"]" +
                   identity);
  CHECK(signer.Refusal("q.io/a:1").empty());
  signer.SetPolicy(R"({"type":"sigstoreSigned","keyPath":")" + key + "\"}");
  CHECK(signer.Refusal("q.io/a:1").find("it is for q.io/a") != std::string::npos);
  signer.SetPolicy(R"({"type":"sigstoreSigned","keyPath":"/etc/hostname")" + identity);
  CHECK_FALSE(signer.Refusal("q.io/a:1").empty());
}

}  // namespace
}  // namespace crisp::imaged
