// Signatures whose signer a certificate authority vouches for, and those that a transparency log
// must know: authorities, certificates and log entries made by openssl.
#include <catch2/catch.hpp>

#include "services/imaged/tests/signer.h"
#include "services/imaged/trust/rekor.h"

namespace crisp::imaged {
namespace {

using testing::json;
using testing::Ref;
using testing::Signer;
using testing::Soon;
using namespace std::chrono_literals;

constexpr std::string_view kConfig = R"([req]
distinguished_name=dn
[dn]
[root]
basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign
subjectKeyIdentifier=hash
[intermediate]
basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign
extendedKeyUsage=codeSigning
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
)";
constexpr std::string_view kSigningLeaf =
    "keyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\n";
constexpr std::string_view kDev = "subjectAltName=critical,email:dev@x.org\n";
constexpr std::string_view kIssuerText =
    "1.3.6.1.4.1.57264.1.8=ASN1:UTF8String:https://login.x.org\n";

std::string Hex(std::string_view text) {
  std::string hex;
  for (const char each : text) hex += fmt::format("{}{:02x}", hex.empty() ? "" : ":", each);
  return hex;
}

/// A signer with an authority (root, intermediate) and a transparency log.
struct Sigstore : Signer {
  const std::string log = MakeCosignKey("rekor");
  const std::string claim = Claim(kSigstoreType, "q.io/a:1");

  Sigstore() {
    root.Write("openssl.cnf", std::string(kConfig));
    for (const char* name : {"root", "intermediate", "leaf"}) MakeCosignKey(name);
    Openssl({"req", "-x509", "-new", "-key", root / "root", "-subj", "/CN=root", "-days", "30",
             "-config", root / "openssl.cnf", "-extensions", "root", "-out", root / "root.pem"});
    Issue("intermediate", "root", "", "intermediate");
  }

  std::string Openssl(std::vector<std::string> words) {
    words.insert(words.begin(), "/usr/bin/openssl");
    return Run(words);
  }
  std::string Read(const std::string& name) { return os::ReadFile(root / name).value(); }

  /// A certificate of the key `name` by the authority `by`, for a day: its path.
  std::string Issue(const std::string& name, const std::string& by, const std::string& extensions,
                    const std::string& section = "leaf") {
    root.Write("extensions.cnf", std::string(kConfig) + "[leaf]\n" + extensions);
    Openssl({"req", "-new", "-key", root / name, "-subj", "/CN=" + name, "-config",
             root / "openssl.cnf", "-out", root / "request"});
    Openssl({"x509", "-req", "-in", root / "request", "-CA", root / by + ".pem", "-CAkey",
             root / by, "-set_serial", "7", "-days", "1", "-extfile", root / "extensions.cnf",
             "-extensions", section, "-out", root / name + ".pem"});
    return root / name + ".pem";
  }

  struct Entry {
    std::string signer;  // PEM
    std::string raw;
    std::string payload;
    std::chrono::seconds after = 10min;  // from now on
    std::string log = "rekor";
    std::string kind = "hashedrekord";
  };
  /// What cosign attaches of the log's answer, in another order and form than what is signed.
  std::string Promise(const Entry& entry) {
    const json body = {
        {"apiVersion", "0.0.1"},
        {"kind", entry.kind},
        {"spec",
         {{"data",
           {{"hash", {{"algorithm", "sha256"}, {"value", digest::Sha256Hex(entry.payload)}}}}},
          {"signature",
           {{"content", Base64(entry.raw)}, {"publicKey", {{"content", Base64(entry.signer)}}}}}}}};
    const std::string text = Base64(body.dump());
    const auto time = std::chrono::duration_cast<std::chrono::seconds>(
                          (Clock::System().Wall() + entry.after).time_since_epoch())
                          .count();
    const std::string canonical = fmt::format(
        R"({{"body":"{}","integratedTime":{},"logID":"c0d2","logIndex":7}})", text, time);
    return fmt::format(R"({{ "SignedEntryTimestamp": "{}",
      "Payload": {{ "logIndex": 7, "logID": "c0d2", "integratedTime": {}, "body": "{}" }} }})",
                       Base64(SignRaw(entry.log, canonical)), time, text);
  }
};

bool Says(const std::string& text, std::string_view part) {
  UNSCOPED_INFO(text);
  return text.find(part) != std::string::npos;
}

TEST_CASE("A key's signature counts with the log's promise alone where the policy names a log") {
  Sigstore sigstore;
  const std::string key = sigstore.MakeCosignKey("cosign");
  const std::string other_log = sigstore.MakeCosignKey("other-log");
  const std::string pem = sigstore.Read("cosign.pub");
  const std::string raw = sigstore.SignRaw("cosign", sigstore.claim);
  const auto refusal = [&](const std::string& promise) {
    json annotations = json::object();
    if (!promise.empty()) annotations["dev.sigstore.cosign/bundle"] = promise;
    sigstore.Attach(sigstore.claim, raw, annotations);
    return sigstore.Refusal("q.io/a:1");
  };
  const auto logged = [&](Sigstore::Entry entry) { return refusal(sigstore.Promise(entry)); };
  const Sigstore::Entry good{.signer = pem, .raw = raw, .payload = sigstore.claim};
  const auto with = [&good](auto change) {
    Sigstore::Entry entry = good;
    change(entry);
    return entry;
  };
  sigstore.SetPolicy(R"({"type":"sigstoreSigned","keyPath":")" + key +
                     R"(","rekorPublicKeyPaths":[")" + other_log + "\",\"" + sigstore.log + "\"]}");
  CHECK(logged(good).empty());
  CHECK(Says(refusal(""), "no transparency log knows the signature"));
  CHECK(Says(refusal("{}"), "a key is missing"));
  CHECK(Says(logged(with([](auto& entry) { entry.log = "cosign"; })), "by none of the logs"));
  CHECK(Says(logged(with([](auto& entry) { entry.payload = "{}"; })), "of another payload"));
  CHECK(Says(logged(with([](auto& entry) { entry.raw += "x"; })), "of another signature"));
  CHECK(Says(logged(with([](auto& entry) { entry.kind = "rekord"; })), "of the kind rekord"));
  CHECK(Says(logged(with([&](auto& entry) { entry.signer = sigstore.Read("rekor.pub"); })),
             "of another signer"));
  CHECK(Says(logged(with([](auto& entry) { entry.signer = "no PEM"; })), "not PEM"));
  CHECK(
      Says(logged(with([](auto& entry) { entry.signer += entry.signer; })), "more than one block"));
  const std::string promise = sigstore.Promise(good);
  const auto edited = [&](const std::string& from, const std::string& to) {
    std::string text = promise;
    return refusal(text.replace(text.find(from), from.size(), to));
  };
  CHECK(Says(edited("\"logIndex\": 7", "\"logIndex\": 8"), "by none of the logs"));
  CHECK(Says(edited("\"logIndex\": 7", "\"logIndex\": 7.5"), "logIndex"));
  CHECK(Says(edited("\"logIndex\": 7", "\"logIndex\": 7, \"logIndex\": 7"), "twice"));
  CHECK(Says(edited("\"logIndex\": 7", "\"more\": 7"), "unknown key more"));
  CHECK(Says(refusal(std::string(100, '[')), "JSON"));
  // What the log has said is kept with the signature.
  CHECK(logged(good).empty());
  const auto pulled = sigstore.Pull("q.io/a:1");
  REQUIRE(pulled.ok());
  const Signature kept = DecodeSignature(EncodeSignature(pulled->front())).value();
  CHECK(sigstore.trust.CheckKept(Soon(), Ref("q.io/a:1"), {sigstore.digest}, {kept}).ok());
}

TEST_CASE("Fulcio's certificate speaks for a mail address, at the time that the log tells") {
  Sigstore sigstore;
  const std::string raw = sigstore.SignRaw("leaf", sigstore.claim);
  const auto policy = [&](const std::string& authority) {
    sigstore.SetPolicy(R"({"type":"sigstoreSigned","rekorPublicKeyPath":")" + sigstore.log +
                       R"(","fulcio":{"caPath":")" + sigstore.root / authority +
                       R"(","oidcIssuer":"https://login.x.org","subjectEmail":"dev@x.org"}})");
  };
  const auto attach = [&](std::chrono::seconds after, const std::string& chain = "") {
    const std::string certificate = sigstore.Read("leaf.pem");
    sigstore.Attach(
        sigstore.claim, raw,
        {{"dev.sigstore.cosign/certificate", certificate},
         {"dev.sigstore.cosign/chain", chain.empty() ? sigstore.Read("intermediate.pem") : chain},
         {"dev.sigstore.cosign/bundle",
          sigstore.Promise(
              {.signer = certificate, .raw = raw, .payload = sigstore.claim, .after = after})}});
    return sigstore.Refusal("q.io/a:1");
  };
  const auto issue = [&](const std::string& extensions, const std::string& by = "intermediate") {
    sigstore.Issue("leaf", by, extensions);
    return attach(10min);
  };
  const std::string leaf(kSigningLeaf);
  const std::string dev(kDev);
  const std::string issuer(kIssuerText);
  const std::string old_issuer = "1.3.6.1.4.1.57264.1.1=DER:" + Hex("https://login.x.org") + "\n";
  policy("root.pem");
  CHECK(issue(leaf + dev + issuer).empty());
  CHECK(issue(leaf + dev + old_issuer).empty());
  CHECK(issue(leaf + dev + issuer + old_issuer).empty());
  CHECK(issue(leaf + issuer + "subjectAltName=email:boss@x.org,email:dev@x.org\n").empty());
  CHECK(attach(10min, sigstore.Read("intermediate.pem") + sigstore.Read("root.pem")).empty());

  CHECK(Says(issue(leaf + dev), "does not say who the issuer is"));
  CHECK(Says(issue(leaf + dev + issuer + "1.3.6.1.4.1.57264.1.1=DER:" + Hex("https://evil") + "\n"),
             "the certificate's issuer is https://evil"));
  CHECK(Says(issue(leaf + dev + "1.3.6.1.4.1.57264.1.8=DER:" + Hex("https://login.x.org") + "\n"),
             "not a UTF8String"));
  CHECK(Says(issue(leaf + issuer + "subjectAltName=email:eve@x.org\n"), "is for eve@x.org"));
  CHECK(Says(issue(leaf + issuer + "subjectAltName=URI:dev@x.org\n"), "for no mail address"));
  CHECK(Says(issue("extendedKeyUsage=serverAuth\n" + dev + issuer), "not one to sign code with"));
  CHECK(Says(issue(leaf + dev + issuer + "1.2.3.4=critical,DER:0500\n"), "critical extension"));

  CHECK(issue(leaf + dev + issuer).empty());
  CHECK(Says(attach(48h), "expired"));
  CHECK(Says(attach(-48h), "not yet valid"));
  CHECK(Says(attach(10min, "none"), "its certificate's chain: no certificate in PEM"));
  CHECK(Says(attach(10min, sigstore.Read("root.pem")), "unable to get local issuer"));
  policy("intermediate.pem");  // trusted without what is above it
  CHECK(attach(10min).empty());
  policy("rekor.pub");
  CHECK(Says(attach(10min), "certificate authority: no certificate in PEM"));
  // A certificate that is no authority's cannot vouch for another.
  policy("root.pem");
  sigstore.MakeCosignKey("middle");
  sigstore.Issue("middle", "root", leaf + dev + issuer);
  sigstore.Issue("leaf", "middle", leaf + dev + issuer);
  CHECK(Says(attach(10min, sigstore.Read("middle.pem")), "not valid: invalid CA"));

  // The signature must be the certificate's, whoever that is.
  sigstore.Issue("leaf", "intermediate", leaf + dev + issuer);
  const std::string certificate = sigstore.Read("leaf.pem");
  const std::string other = sigstore.SignRaw("middle", sigstore.claim);
  const auto annotations = [&](const std::string& shown) {
    return json{
        {"dev.sigstore.cosign/certificate", shown},
        {"dev.sigstore.cosign/chain", sigstore.Read("intermediate.pem")},
        {"dev.sigstore.cosign/bundle",
         sigstore.Promise({.signer = certificate, .raw = other, .payload = sigstore.claim})}};
  };
  sigstore.Attach(sigstore.claim, other, annotations(certificate));
  CHECK(Says(sigstore.Refusal("q.io/a:1"), "not by the certificate's key"));
  sigstore.Attach(sigstore.claim, other, annotations(certificate + certificate));
  CHECK(Says(sigstore.Refusal("q.io/a:1"), "2 certificates where one is expected"));
  sigstore.Attach(sigstore.claim, other);
  CHECK(Says(sigstore.Refusal("q.io/a:1"), "it comes without a certificate"));

  // It stays good for containers when the certificate has run out long ago.
  CHECK(attach(10min).empty());
  const auto pulled = sigstore.Pull("q.io/a:1");
  REQUIRE(pulled.ok());
  sigstore.clock.Advance(std::chrono::hours(24) * 365);
  const Signature kept = DecodeSignature(EncodeSignature(pulled->front())).value();
  CHECK(sigstore.trust.CheckKept(Soon(), Ref("q.io/a:1"), {sigstore.digest}, {kept}).ok());
}

TEST_CASE("A PKI's certificate speaks for a mail address or a host, while it is valid") {
  Sigstore sigstore;
  const std::string raw = sigstore.SignRaw("leaf", sigstore.claim);
  const auto policy = [&](const std::string& subject, const std::string& intermediates = "") {
    sigstore.SetPolicy(R"({"type":"sigstoreSigned","pki":{"caRootsData":")" +
                       Base64(sigstore.Read("root.pem")) + "\"," + intermediates + subject + "}}");
    return sigstore.Refusal("q.io/a:1");
  };
  sigstore.Issue("leaf", "intermediate",
                 std::string(kSigningLeaf) + "subjectAltName=DNS:*.build.x.org,email:dev@x.org\n");
  sigstore.Attach(sigstore.claim, raw,
                  {{"dev.sigstore.cosign/certificate", sigstore.Read("leaf.pem")}});
  const std::string known =
      R"("caIntermediatesPath":")" + sigstore.root / "intermediate.pem" + "\",";
  CHECK(Says(policy(R"("subjectEmail":"dev@x.org")"), "unable to get local issuer"));
  CHECK(policy(R"("subjectEmail":"dev@x.org")", known).empty());
  CHECK(policy(R"("subjectHostname":"ci.build.x.org")", known).empty());
  CHECK(policy(R"("subjectHostname":"ci.build.x.org","subjectEmail":"dev@x.org")", known).empty());
  CHECK(Says(policy(R"("subjectHostname":"ci.x.org","subjectEmail":"dev@x.org")", known),
             "not for the host ci.x.org"));
  // The common name is no host's.
  CHECK(Says(policy(R"("subjectHostname":"leaf")", known), "not for the host leaf"));
  CHECK(Says(policy(R"("subjectEmail":"DEV@x.org")", known), "is for dev@x.org"));
  sigstore.clock.Advance(48h);
  CHECK(Says(policy(R"("subjectEmail":"dev@x.org")", known), "expired"));
}

TEST_CASE("A broken signature beside a good one does no harm") {
  Sigstore sigstore;
  const std::string key = sigstore.MakeCosignKey("cosign");
  sigstore.SetPolicy(R"({"type":"sigstoreSigned","keyPath":")" + key + "\"}");
  sigstore.SignCosign("cosign", sigstore.claim);
  auto& text = sigstore.repository["sha256-" + std::string(sigstore.digest.hex()) + ".sig"];
  json index = json::parse(text);
  json broken = index["layers"][0];
  broken["annotations"]["dev.cosignproject.cosign/signature"] = "not base64!";
  broken["annotations"]["dev.sigstore.cosign/bundle"] = 7;
  index["layers"].insert(index["layers"].begin(), broken);
  text = index.dump();
  CHECK(sigstore.Refusal("q.io/a:1").empty());
}

}  // namespace
}  // namespace crisp::imaged
