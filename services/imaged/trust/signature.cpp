#include "services/imaged/trust/signature.h"

#include <algorithm>
#include <array>
#include <utility>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/config/schema.h"
#include "libs/http/url.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/ref/ref.h"
#include "services/imaged/core/strict_json.h"

namespace crisp::imaged {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kFile = "file://";
constexpr std::string_view kBuiltIn = "file:///var/lib/containers/sigstore";
constexpr int kMaxSignatures = 64;
constexpr Bytes kMaxSignature = KiB(64);
// Annotations of a signature's layer (cosign, SIGNATURE_SPEC.md).
constexpr std::string_view kRawSignature = "dev.cosignproject.cosign/signature";
constexpr std::string_view kCertificate = "dev.sigstore.cosign/certificate";
constexpr std::string_view kChain = "dev.sigstore.cosign/chain";
constexpr std::string_view kPromise = "dev.sigstore.cosign/bundle";
constexpr std::string_view kLayerType = "application/vnd.dev.cosign.simplesigning.v1+json";

/// What a stored signature need not have.
constexpr std::array<std::pair<const char*, std::string Signature::*>, 3> kAttached = {
    {{"certificate", &Signature::certificate},
     {"chain", &Signature::chain},
     {"promise", &Signature::promise}}};

/// One scope of registries.d.
struct Place {
  std::string lookaside;
  std::string lookaside_staging;
  std::string sigstore;
  std::string sigstore_staging;
  bool attachments = false;

  static void AddKeys(config::Schema& schema, const std::string& prefix, Place& place) {
    schema.Text(prefix + "lookaside", &place.lookaside, {})
        .Text(prefix + "lookaside-staging", &place.lookaside_staging, {})
        .Text(prefix + "sigstore", &place.sigstore, {})
        .Text(prefix + "sigstore-staging", &place.sigstore_staging, {})
        .Bool(prefix + "use-sigstore-attachments", &place.attachments, {});
  }
  /// "sigstore" is the old name.
  const std::string& url() const { return lookaside.empty() ? sigstore : lookaside; }
};

/// The bytes behind a URL; nothing when there is nothing.
Result<std::optional<std::string>> Get(const CallContext& cc, http::Client& client,
                                       const std::string& url) {
  if (url.starts_with(kFile)) {
    Result<std::string> text = os::ReadFile(url.substr(kFile.size()), kMaxSignature);
    if (text.code() == Code::kNotFound) return std::optional<std::string>();
    if (!text.ok()) return std::move(text).status();
    return std::optional<std::string>(*std::move(text));
  }
  http::Request request;
  request.url = CRISP_TRY(http::Url::Parse(url));
  http::Response response = CRISP_TRY(client.Send(cc, request));
  constexpr int kOk = 200;
  constexpr int kNotThere = 404;
  if (response.status() == kNotThere) return std::optional<std::string>();
  if (response.status() != kOk)
    return Unavailable("{} answers with status {}", request.url.ForLog(), response.status());
  return std::optional<std::string>(CRISP_TRY(response.ReadAll(cc, kMaxSignature)));
}

/// Empty without it, and for one that is larger than any signature's is.
std::string Annotation(const Json& layer, std::string_view name) {
  const auto all = layer.find("annotations");
  if (all == layer.end() || !all->is_object()) return "";
  const auto found = all->find(name);
  if (found == all->end() || !found->is_string()) return "";
  const auto& text = found->get_ref<const std::string&>();
  return text.size() <= kMaxSignature.count() ? text : "";
}

}  // namespace

Result<Claim> ParseClaim(std::string_view payload, std::string_view type) {
  const Json root = CRISP_TRY(json::Parse(payload, {.unique_keys = true}));
  if (!root.is_object() || !root.contains("critical"))
    return InvalidArgument("critical is missing");
  for (const auto& [key, value] : root.items())
    if (key != "critical" && key != "optional") return InvalidArgument("unknown key {:.64}", key);
  const Json& critical = root["critical"];
  CRISP_TRY(ExactlyKeys(critical, {"type", "image", "identity"}).While("critical"));
  CRISP_TRY(ExactlyKeys(critical["image"], {"docker-manifest-digest"}).While("critical.image"));
  CRISP_TRY(ExactlyKeys(critical["identity"], {"docker-reference"}).While("critical.identity"));
  if (CRISP_TRY(json::GetString(critical, "type")) != type)
    return InvalidArgument("critical.type is not \"{}\"", type);
  Claim claim;
  claim.manifest_digest = CRISP_TRY(json::GetString(critical["image"], "docker-manifest-digest"));
  claim.reference = CRISP_TRY(json::GetString(critical["identity"], "docker-reference"));
  return claim;
}

Result<Lookaside> Lookaside::Load(const std::string& directory) {
  Lookaside lookaside;
  lookaside.default_ = kBuiltIn;
  const Result<std::vector<std::string>> names = os::ListDir(directory);
  if (names.code() == Code::kNotFound) return lookaside;
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (!name.ends_with(".yaml")) continue;
    Place common;
    std::map<std::string, Place> scopes;
    config::Schema schema;
    Place::AddKeys(schema, "default-docker.", common);
    schema.Map<Place>("docker", &scopes, {},
                      [](config::Schema& keys, Place& place) { Place::AddKeys(keys, "", place); });
    CRISP_TRY(schema.LoadFile(directory + "/" + name));
    if (!common.url().empty()) lookaside.default_ = common.url();
    for (const auto& [scope, place] : scopes)
      if (!place.url().empty())
        lookaside.scopes_.emplace_back(ref::LowerDomain(scope), place.url());
  }
  return lookaside;
}

std::string Lookaside::For(std::string_view name) const {
  while (true) {
    const auto found = std::find_if(scopes_.begin(), scopes_.end(),
                                    [&name](const auto& scope) { return scope.first == name; });
    if (found != scopes_.end()) return found->second;
    const std::size_t slash = name.rfind('/');
    if (slash == std::string_view::npos) return default_;
    name = name.substr(0, slash);
  }
}

std::vector<std::string> Lookaside::LocalPaths() const {
  std::vector<std::string> paths;
  const auto add = [&paths](std::string_view url) {
    if (url.starts_with(kFile)) paths.emplace_back(url.substr(kFile.size()));
  };
  add(default_);
  for (const auto& [scope, url] : scopes_) add(url);
  return paths;
}

Result<std::vector<Signature>> FetchSimple(const CallContext& cc, http::Client& client,
                                           const std::string& lookaside, const std::string& name,
                                           const digest::Digest& manifest) {
  std::vector<Signature> signatures;
  const std::string base = lookaside.substr(0, lookaside.find_last_not_of('/') + 1);
  for (int i = 1; i <= kMaxSignatures; ++i) {
    const std::string url =
        fmt::format("{}/{}@sha256={}/signature-{}", base, name, manifest.hex(), i);
    std::optional<std::string> data =
        CRISP_TRY(Get(cc, client, url).While("read signatures of {}", name));
    if (!data) break;
    signatures.push_back({.manifest = manifest, .data = *std::move(data)});
  }
  return signatures;
}

Result<std::vector<Signature>> FetchSigstore(const CallContext& cc, const RepositoryReader& reader,
                                             const digest::Digest& manifest) {
  std::vector<Signature> signatures;
  const std::string tag = fmt::format("sha256-{}.sig", manifest.hex());
  const Result<std::string> text = reader.manifest(cc, tag);
  if (text.code() == Code::kNotFound) return signatures;
  if (!text.ok()) return text.status();
  const Json root = CRISP_TRY(json::Parse(*text).While("{}", tag));
  for (const Json& layer : CRISP_TRY(json::OptArray(root, "layers").While("{}", tag))) {
    if (signatures.size() >= kMaxSignatures) break;
    if (json::OptString(layer, "mediaType").value_or("") != kLayerType) continue;
    const std::string encoded = Annotation(layer, kRawSignature);
    if (encoded.empty()) continue;
    const std::string stated = CRISP_TRY(json::GetString(layer, "digest"));
    const digest::Digest blob = CRISP_TRY(digest::Digest::Parse(stated));
    signatures.push_back({.kind = Signature::Kind::kSigstore,
                          .manifest = manifest,
                          .data = CRISP_TRY(reader.blob(cc, blob, kMaxSignature)),
                          .raw = FromBase64(encoded).value_or(""),  // then it is nobody's
                          .certificate = Annotation(layer, kCertificate),
                          .chain = Annotation(layer, kChain),
                          .promise = Annotation(layer, kPromise)});
  }
  return signatures;
}

std::string EncodeSignature(const Signature& signature) {
  Json object = {{"kind", signature.kind == Signature::Kind::kSimple ? "simple" : "sigstore"},
                 {"manifest", signature.manifest.str()},
                 {"data", Base64(signature.data)},
                 {"raw", Base64(signature.raw)}};
  for (const auto& [key, member] : kAttached)
    if (!(signature.*member).empty()) object[key] = Base64(signature.*member);
  return json::Dump(object);
}

Result<Signature> DecodeSignature(std::string_view text) {
  const Json object = CRISP_TRY(json::Parse(text));
  Signature signature;
  const std::string kind = CRISP_TRY(json::GetString(object, "kind"));
  signature.kind = kind == "simple" ? Signature::Kind::kSimple : Signature::Kind::kSigstore;
  const std::string manifest = CRISP_TRY(json::GetString(object, "manifest"));
  signature.manifest = CRISP_TRY(digest::Digest::Parse(manifest));
  const std::string data = CRISP_TRY(json::GetString(object, "data"));
  signature.data = CRISP_TRY(FromBase64(data));
  const std::string raw = CRISP_TRY(json::GetString(object, "raw"));
  signature.raw = CRISP_TRY(FromBase64(raw));
  for (const auto& [key, member] : kAttached) {
    const std::string attached = CRISP_TRY(json::OptString(object, key));
    signature.*member = CRISP_TRY(FromBase64(attached));
  }
  return signature;
}

}  // namespace crisp::imaged
