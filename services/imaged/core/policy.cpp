#include "services/imaged/core/policy.h"

#include <algorithm>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "services/imaged/core/strict_json.h"

namespace crisp::imaged {
namespace {

using Json = nlohmann::json;

Result<SignedIdentity> ParseIdentity(const Json& object) {
  SignedIdentity identity;
  using Kind = SignedIdentity::Kind;
  const std::string type = CRISP_TRY(json::GetString(object, "type"));
  if (type == "matchRepoDigestOrExact" || type == "matchExact" || type == "matchRepository") {
    CRISP_TRY(OnlyKeys(object, {"type"}));
    identity.kind = type == "matchExact"        ? Kind::kMatchExact
                    : type == "matchRepository" ? Kind::kMatchRepository
                                                : Kind::kMatchRepoDigestOrExact;
  } else if (type == "exactReference") {
    CRISP_TRY(OnlyKeys(object, {"type", "dockerReference"}));
    identity.kind = Kind::kExactReference;
    identity.reference = CRISP_TRY(json::GetString(object, "dockerReference"));
    CRISP_TRY(ref::Parse(identity.reference).While("dockerReference"));
  } else if (type == "exactRepository") {
    CRISP_TRY(OnlyKeys(object, {"type", "dockerRepository"}));
    identity.kind = Kind::kExactRepository;
    identity.reference = CRISP_TRY(json::GetString(object, "dockerRepository"));
    CRISP_TRY(ref::Parse(identity.reference).While("dockerRepository"));
  } else if (type == "remapIdentity") {
    CRISP_TRY(OnlyKeys(object, {"type", "prefix", "signedPrefix"}));
    identity.kind = Kind::kRemapIdentity;
    const std::string prefix = CRISP_TRY(json::GetString(object, "prefix"));
    identity.prefix = ref::LowerDomain(prefix);
    identity.signed_prefix = CRISP_TRY(json::GetString(object, "signedPrefix"));
    if (identity.prefix.empty() || identity.signed_prefix.empty())
      return InvalidArgument("an empty prefix");
  } else {
    return InvalidArgument("unknown type {:.64}", type);
  }
  return identity;
}

/// <stem>Path, <stem>Paths, <stem>Data and <stem>Datas: how many of them there are.
Result<int> ParseMaterial(const Json& object, const std::string& stem, Material& material) {
  int given = 0;
  const auto decode = [&](const std::string& text) -> Status {
    material.data.push_back(CRISP_TRY(FromBase64(text).While("{}Data", stem)));
    return Status::Ok();
  };
  if (object.contains(stem + "Path")) {
    ++given;
    material.paths.push_back(CRISP_TRY(json::GetString(object, stem + "Path")));
  }
  if (object.contains(stem + "Paths")) {
    ++given;
    material.paths = CRISP_TRY(json::OptStrings(object, stem + "Paths"));
    if (material.paths.empty()) return InvalidArgument("{}Paths is empty", stem);
  }
  if (object.contains(stem + "Data")) {
    ++given;
    const std::string text = CRISP_TRY(json::GetString(object, stem + "Data"));
    CRISP_TRY(decode(text));
  }
  if (object.contains(stem + "Datas")) {
    ++given;
    for (const std::string& text : CRISP_TRY(json::OptStrings(object, stem + "Datas")))
      CRISP_TRY(decode(text));
    if (material.data.empty()) return InvalidArgument("{}Datas is empty", stem);
  }
  for (const std::string& path : material.paths)
    if (!path.starts_with('/')) return InvalidArgument("{}Path {:.64} is not absolute", stem, path);
  return given;
}

Result<CertifiedSigner> ParseFulcio(const Json& object) {
  CRISP_TRY(OnlyKeys(object, {"caPath", "caData", "oidcIssuer", "subjectEmail"}));
  CertifiedSigner signer;
  if (CRISP_TRY(ParseMaterial(object, "ca", signer.roots)) != 1)
    return InvalidArgument("exactly one of caPath and caData");
  signer.oidc_issuer = CRISP_TRY(json::GetString(object, "oidcIssuer"));
  signer.email = CRISP_TRY(json::GetString(object, "subjectEmail"));
  if (signer.oidc_issuer.empty()) return InvalidArgument("oidcIssuer is empty");
  if (signer.email.empty()) return InvalidArgument("subjectEmail is empty");
  return signer;
}

Result<CertifiedSigner> ParsePki(const Json& object) {
  CRISP_TRY(OnlyKeys(object, {"caRootsPath", "caRootsData", "caIntermediatesPath",
                              "caIntermediatesData", "subjectEmail", "subjectHostname"}));
  CertifiedSigner signer;
  if (CRISP_TRY(ParseMaterial(object, "caRoots", signer.roots)) != 1)
    return InvalidArgument("exactly one of caRootsPath and caRootsData");
  if (CRISP_TRY(ParseMaterial(object, "caIntermediates", signer.intermediates)) > 1)
    return InvalidArgument("only one of caIntermediatesPath and caIntermediatesData");
  signer.email = CRISP_TRY(json::OptString(object, "subjectEmail"));
  signer.hostname = CRISP_TRY(json::OptString(object, "subjectHostname"));
  if (signer.email.empty() && signer.hostname.empty())
    return InvalidArgument("subjectEmail or subjectHostname is needed");
  return signer;
}

Status ParseSigstore(const Json& object, Requirement& requirement) {
  CRISP_TRY(OnlyKeys(object, {"type", "keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki",
                              "rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData",
                              "rekorPublicKeyDatas", "signedIdentity"}));
  const int keys = CRISP_TRY(ParseMaterial(object, "key", requirement.keys));
  const bool fulcio = object.contains("fulcio");
  const bool pki = object.contains("pki");
  if (keys + (fulcio ? 1 : 0) + (pki ? 1 : 0) != 1)
    return InvalidArgument("exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki");
  if (fulcio) requirement.signer = CRISP_TRY(ParseFulcio(object["fulcio"]).While("fulcio"));
  if (pki) requirement.signer = CRISP_TRY(ParsePki(object["pki"]).While("pki"));
  const int logs = CRISP_TRY(ParseMaterial(object, "rekorPublicKey", requirement.log_keys));
  if (logs > 1) return InvalidArgument("only one of the rekorPublicKey kinds");
  if (fulcio && logs == 0)
    return InvalidArgument("fulcio needs a rekorPublicKey: its certificates live for minutes");
  return Status::Ok();
}

Result<Requirement> ParseRequirement(const Json& object) {
  Requirement requirement;
  using Kind = Requirement::Kind;
  const std::string type = CRISP_TRY(json::GetString(object, "type"));
  if (type == "insecureAcceptAnything" || type == "reject") {
    CRISP_TRY(OnlyKeys(object, {"type"}));
    requirement.kind = type == "reject" ? Kind::kReject : Kind::kAccept;
    return requirement;
  }
  if (type == "signedBy") {
    requirement.kind = Kind::kSignedBy;
    CRISP_TRY(
        OnlyKeys(object, {"type", "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"}));
    const std::string key_type = CRISP_TRY(json::GetString(object, "keyType"));
    if (key_type != "GPGKeys") return InvalidArgument("keyType {:.64} is not supported", key_type);
    if (CRISP_TRY(ParseMaterial(object, "key", requirement.keys)) != 1)
      return InvalidArgument("exactly one of keyPath, keyPaths and keyData");
  } else if (type == "sigstoreSigned") {
    requirement.kind = Kind::kSigstoreSigned;
    CRISP_TRY(ParseSigstore(object, requirement));
  } else {
    return InvalidArgument("unknown type {:.64}", type);
  }
  if (object.contains("signedIdentity"))
    requirement.identity =
        CRISP_TRY(ParseIdentity(object["signedIdentity"]).While("signedIdentity"));
  return requirement;
}

Result<std::vector<Requirement>> ParseRequirements(const Json& array) {
  if (!array.is_array()) return InvalidArgument("a list is expected");
  if (array.empty()) return InvalidArgument("an empty list of requirements");
  std::vector<Requirement> requirements;
  for (const Json& each : array)
    requirements.push_back(
        CRISP_TRY(ParseRequirement(each).While("requirement {}", requirements.size())));
  return requirements;
}

/// A name without tag and digest, which ref::Parse would give ":latest".
bool HasTagOrDigest(std::string_view name) {
  return name.find('@') != std::string_view::npos ||
         name.substr(name.rfind('/') + 1).find(':') != std::string_view::npos;
}

bool SameExactly(const ref::ImageRef& asked, const ref::ImageRef& named) {
  if (asked.Name() != named.Name()) return false;
  return asked.digest.empty() ? named.digest.empty() && asked.tag == named.tag
                              : asked.digest == named.digest;
}

}  // namespace

Result<std::vector<std::string>> Material::Read() const {
  std::vector<std::string> all = data;
  for (const std::string& path : paths) all.push_back(CRISP_TRY(os::ReadFile(path)));
  return all;
}

bool SignedIdentity::Matches(const ref::ImageRef& asked, std::string_view signed_name) const {
  const Result<ref::ImageRef> parsed = ref::Parse(signed_name);
  if (!parsed.ok()) return false;
  const bool exact = HasTagOrDigest(signed_name) && SameExactly(asked, *parsed);
  const bool same_repository = asked.Name() == parsed->Name();
  switch (kind) {
    case Kind::kMatchExact: return exact;
    case Kind::kMatchRepository: return same_repository;
    case Kind::kMatchRepoDigestOrExact:
      return asked.digest.empty() ? exact : same_repository && HasTagOrDigest(signed_name);
    case Kind::kExactReference: {
      const Result<ref::ImageRef> wanted = ref::Parse(reference);
      return wanted.ok() && HasTagOrDigest(reference) == HasTagOrDigest(signed_name) &&
             wanted->ToString() == parsed->ToString();
    }
    case Kind::kExactRepository: {
      const Result<ref::ImageRef> wanted = ref::Parse(reference);
      return wanted.ok() && wanted->Name() == parsed->Name();
    }
    case Kind::kRemapIdentity: break;
  }
  const std::string name = asked.Name();
  const bool below = name == prefix || name.starts_with(prefix + "/");
  SignedIdentity plain;
  if (!below) return plain.Matches(asked, signed_name);
  std::string mapped = signed_prefix + name.substr(prefix.size());
  mapped += asked.digest.empty() ? ":" + asked.tag : "@" + asked.digest;
  const Result<ref::ImageRef> remapped = ref::Parse(mapped);
  return remapped.ok() && plain.Matches(*remapped, signed_name);
}

Result<Policy> Policy::Parse(std::string_view text) {
  const Json root = CRISP_TRY(json::Parse(text, {.unique_keys = true}));
  CRISP_TRY(OnlyKeys(root, {"default", "transports"}));
  if (!root.contains("default")) return InvalidArgument("default is missing");
  Policy policy;
  policy.default_ = CRISP_TRY(ParseRequirements(root["default"]).While("default"));
  const Json transports = CRISP_TRY(json::OptObject(root, "transports"));
  for (const auto& [transport, scopes] : transports.items()) {
    if (!scopes.is_object()) return InvalidArgument("transports.{:.64} is no object", transport);
    for (const auto& [scope, requirements] : scopes.items()) {
      std::vector<Requirement> parsed = CRISP_TRY(
          ParseRequirements(requirements).While("transports.{:.64}, {:.200}", transport, scope));
      if (transport != "docker") continue;
      const std::string name = ref::LowerDomain(scope);
      if (policy.Find(name) != nullptr) return InvalidArgument("{:.200} is there twice", name);
      policy.scopes_.push_back({name, std::move(parsed)});
    }
  }
  return policy;
}

Policy Policy::AcceptAnything() {
  Policy policy;
  policy.default_ = {{.kind = Requirement::Kind::kAccept}};
  return policy;
}

const Policy::Scope* Policy::Find(std::string_view name) const {
  const auto found = std::find_if(scopes_.begin(), scopes_.end(),
                                  [&name](const Scope& scope) { return scope.name == name; });
  return found == scopes_.end() ? nullptr : &*found;
}

Policy::Match Policy::For(const ref::ImageRef& image) const {
  const auto as_match = [](const Scope& scope) { return Match{scope.name, &scope.requirements}; };
  const std::string full = image.digest.empty() ? image.Tagged() : image.Digested();
  if (const Scope* scope = Find(full)) return as_match(*scope);
  for (std::string name = image.Name();;) {
    if (const Scope* scope = Find(name)) return as_match(*scope);
    const std::size_t slash = name.rfind('/');
    if (slash == std::string::npos) break;
    name.resize(slash);
  }
  const std::string host = image.domain.substr(0, image.domain.rfind(':'));
  for (std::size_t dot = host.find('.'); dot != std::string::npos; dot = host.find('.', dot + 1))
    if (const Scope* scope = Find("*" + host.substr(dot))) return as_match(*scope);
  return ForNameless();
}

Policy::Match Policy::ForNameless() const {
  if (const Scope* scope = Find("")) return {"the default of docker", &scope->requirements};
  return {"default", &default_};
}

std::vector<std::string> Policy::KeyPaths() const {
  std::vector<std::string> paths;
  const auto add = [&paths](const std::vector<Requirement>& requirements) {
    for (const Requirement& each : requirements)
      for (const Material* material :
           {&each.keys, &each.log_keys, each.signer ? &each.signer->roots : nullptr,
            each.signer ? &each.signer->intermediates : nullptr})
        if (material != nullptr)
          paths.insert(paths.end(), material->paths.begin(), material->paths.end());
  };
  add(default_);
  for (const Scope& scope : scopes_) add(scope.requirements);
  return paths;
}

}  // namespace crisp::imaged
