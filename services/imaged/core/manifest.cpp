#include "services/imaged/core/manifest.h"

#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <limits>
#include <set>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "services/imaged/core/chunked.h"

namespace crisp::imaged {
namespace {

constexpr std::string_view kOciManifest = "application/vnd.oci.image.manifest.v1+json";
constexpr std::string_view kOciIndex = "application/vnd.oci.image.index.v1+json";
constexpr std::string_view kOciConfig = "application/vnd.oci.image.config.v1+json";
constexpr std::string_view kDockerManifest = "application/vnd.docker.distribution.manifest.v2+json";
constexpr std::string_view kDockerList =
    "application/vnd.docker.distribution.manifest.list.v2+json";
constexpr std::string_view kDockerConfig = "application/vnd.docker.container.image.v1+json";
constexpr std::string_view kSchema1 = "application/vnd.docker.distribution.manifest.v1+json";
constexpr std::string_view kSchema1Signed =
    "application/vnd.docker.distribution.manifest.v1+prettyjws";
constexpr std::string_view kEmpty = "application/vnd.oci.empty.v1+json";
/// What a layer's type may begin with; its compression is read from its bytes.
constexpr std::array<std::string_view, 4> kLayers = {
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
};
constexpr std::size_t kMaxEntries = 1024;
constexpr std::size_t kMaxAnnotations = std::size_t{16} << 10U;  // bytes, of keys and values
constexpr std::int64_t kMaxBlobSize = std::int64_t{1} << 44U;

Result<Descriptor> ParseDescriptor(const nlohmann::json& json) {
  Descriptor descriptor;
  descriptor.media_type = CRISP_TRY(json::OptString(json, "mediaType"));
  const std::string digest = CRISP_TRY(json::GetString(json, "digest"));
  descriptor.digest = CRISP_TRY(digest::Digest::Parse(digest));
  const std::int64_t size = CRISP_TRY(json::GetInt(json, "size"));
  if (size < 0 || size > kMaxBlobSize)
    return InvalidArgument("blob {} has the impossible size {}", digest, size);
  descriptor.size = static_cast<std::uint64_t>(size);
  return descriptor;
}

Result<std::string> TitleOf(const nlohmann::json& layer) {
  const nlohmann::json annotations = CRISP_TRY(json::OptObject(layer, "annotations"));
  const auto title = annotations.find("org.opencontainers.image.title");
  return title != annotations.end() && title->is_string() ? title->get<std::string>()
                                                          : std::string();
}

/// True for the tar of a layer, compressed as we know it.
bool IsLayer(std::string_view type) {
  const auto known = std::find_if(kLayers.begin(), kLayers.end(), [&type](std::string_view each) {
    return type.starts_with(each);
  });
  if (known == kLayers.end()) return false;
  const std::string_view rest = type.substr(known->size());
  // Docker's name for gzip begins with a dot, OCI's with a plus.
  return rest.empty() || rest == "+gzip" || rest == "+zstd" || rest == ".gzip" || rest == ".zstd";
}

Status CheckLayer(Descriptor& layer) {
  const std::string& type = layer.media_type;
  if (type.ends_with("+encrypted"))
    return Unimplemented("layer {} is encrypted, which is not supported", layer.digest.str());
  if (!type.empty() && !IsLayer(type))
    return Unimplemented("layer {} is of the type {:.128}, which is no container image's",
                         layer.digest.str(), type);
  layer.foreign = type.find("foreign") != type.npos || type.find("nondistributable") != type.npos;
  return Status::Ok();
}

/// What an artifact's maker calls a blob, as the name of a file below a directory: "/a//b" → "a/b".
Result<std::string> FileName(std::string_view title) {
  constexpr std::size_t kMaxPart = 255;
  constexpr std::string_view kWhiteout = ".wh.";
  std::vector<std::string_view> parts;
  for (std::string_view rest = title; !rest.empty();) {
    const std::string_view part = rest.substr(0, rest.find('/'));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
    if (part.empty() || part == ".") continue;
    if (part == ".." || part.size() > kMaxPart || part.starts_with(kWhiteout) ||
        part.find('\0') != part.npos)
      return InvalidArgument("{:.256} is no name for a file", title);
    parts.push_back(part);
  }
  if (parts.empty()) return InvalidArgument("{:.256} is no name for a file", title);
  return fmt::format("{}", fmt::join(parts, "/"));
}

/// Each blob is a file, by its title or else its digest; OCI's stand-in for "nothing" is none.
Status ParseFiles(const nlohmann::json& layers, Manifest& artifact) {
  std::set<std::string> names;
  for (const nlohmann::json& layer : layers) {
    Descriptor blob = CRISP_TRY(ParseDescriptor(layer).While("layer"));
    const std::string title = CRISP_TRY(TitleOf(layer).While("layer {}", blob.digest.str()));
    if (title.empty() && blob.media_type == kEmpty) continue;
    blob.file = title.empty()
                    ? std::string(blob.digest.hex())
                    : CRISP_TRY(FileName(title).While("the title of blob {}", blob.digest.str()));
    if (!names.insert(blob.file).second)
      return InvalidArgument("two of the artifact's blobs are called {:.256}", blob.file);
    artifact.layers.push_back(std::move(blob));
  }
  return Status::Ok();
}

/// Of a manifest without an image's configuration.
Result<Manifest::Kind> KindOf(const nlohmann::json& layers, const Descriptor& config) {
  if (config.media_type != kEmpty || layers.empty()) return Manifest::Kind::kArtifact;
  for (const nlohmann::json& layer : layers) {
    // Files, too, are often said to be layers; but those have a title.
    const std::string type = CRISP_TRY(json::OptString(layer, "mediaType").While("layer"));
    if (!IsLayer(type) || !CRISP_TRY(TitleOf(layer).While("layer")).empty())
      return Manifest::Kind::kArtifact;
  }
  return Manifest::Kind::kBare;
}

/// Most are only shown: what is malformed of them is no reason to refuse an image.
std::map<std::string, std::string> AnnotationsOf(const nlohmann::json& json) {
  std::map<std::string, std::string> annotations;
  std::size_t size = 0;
  const Result<nlohmann::json> all = json::OptObject(json, "annotations");
  if (!all.ok()) return annotations;
  for (const auto& [key, value] : all->items()) {
    if (!value.is_string()) continue;
    const std::string& text = value.get_ref<const std::string&>();
    size += key.size() + text.size();
    if (size > kMaxAnnotations) break;
    annotations.emplace(key, text);
  }
  return annotations;
}

Result<Manifest> ParseImage(const nlohmann::json& json, std::size_t max_layers) {
  Manifest manifest;
  const nlohmann::json config = CRISP_TRY(json::GetObject(json, "config"));
  manifest.config = CRISP_TRY(ParseDescriptor(config).While("config"));
  const nlohmann::json layers = CRISP_TRY(json::GetArray(json, "layers"));
  if (layers.size() > max_layers)
    return ResourceExhausted("the image has {} layers, more than the {} allowed", layers.size(),
                             max_layers);
  manifest.annotations = AnnotationsOf(json);
  const std::string& type = manifest.config.media_type;
  if (!type.empty() && type != kOciConfig && type != kDockerConfig)
    manifest.kind = CRISP_TRY(KindOf(layers, manifest.config));
  if (manifest.kind == Manifest::Kind::kArtifact) {
    manifest.artifact_type = CRISP_TRY(json::OptString(json, "artifactType"));
    if (manifest.artifact_type.empty()) manifest.artifact_type = type;
    CRISP_TRY(ParseFiles(layers, manifest));
    return manifest;
  }
  for (const nlohmann::json& layer : layers) {
    manifest.layers.push_back(CRISP_TRY(ParseDescriptor(layer).While("layer")));
    CRISP_TRY(CheckLayer(manifest.layers.back()));
    const nlohmann::json* annotations = json::Find(layer, "annotations");
    if (annotations != nullptr && annotations->is_object())
      manifest.layers.back().chunked =
          ParseChunkedPlaces(*annotations, manifest.layers.back().size);
  }
  return manifest;
}

Result<Index> ParseIndex(const nlohmann::json& json) {
  Index index;
  const nlohmann::json entries = CRISP_TRY(json::GetArray(json, "manifests"));
  if (entries.size() > kMaxEntries)
    return ResourceExhausted("the index has {} entries, more than the {} allowed", entries.size(),
                             kMaxEntries);
  for (const nlohmann::json& each : entries) {
    Index::Entry entry;
    entry.descriptor = CRISP_TRY(ParseDescriptor(each).While("manifests"));
    entry.platform.os = CRISP_TRY(json::OptString(each, "platform.os"));
    entry.platform.architecture = CRISP_TRY(json::OptString(each, "platform.architecture"));
    entry.platform.variant = CRISP_TRY(json::OptString(each, "platform.variant"));
    index.entries.push_back(std::move(entry));
  }
  return index;
}

/// How good a variant is for the machine: higher is better, nothing when it does not run.
int Rank(const Platform& entry, const Platform& machine) {
  constexpr int kUnfit = -1;
  if (entry.os.empty() && entry.architecture.empty()) return 0;
  if (entry.os != machine.os || entry.architecture != machine.architecture) return kUnfit;
  const auto level = [](const std::string& variant, int fallback) {
    if (variant.size() != 2 || variant[0] != 'v' || variant[1] < '1' || variant[1] > '9')
      return variant.empty() ? fallback : std::numeric_limits<int>::max();
    return variant[1] - '0';
  };
  // What an entry without a variant was built for.
  const int fallback = entry.architecture == "arm" ? 7 : entry.architecture == "arm64" ? 8 : 1;
  const int wanted = level(entry.variant, fallback);
  return wanted <= level(machine.variant, fallback) ? wanted : kUnfit;
}

}  // namespace

Platform Platform::Host() {
  utsname name{};
  ::uname(&name);
  const std::string_view machine = name.machine;
  if (machine == "aarch64") return {"linux", "arm64", "v8"};
  if (machine == "armv7l") return {"linux", "arm", "v7"};
  if (machine == "armv6l") return {"linux", "arm", "v6"};
  if (machine == "i686" || machine == "i586" || machine == "i386") return {"linux", "386", ""};
  if (machine != "x86_64") return {"linux", std::string(machine), ""};
#if defined(__x86_64__) && (!defined(__clang__) || __clang_major__ >= 18)
  // clang knows the levels since 18; Debian 12's serves the fuzzers and clang-tidy.
  if (__builtin_cpu_supports("x86-64-v4")) return {"linux", "amd64", "v4"};
  if (__builtin_cpu_supports("x86-64-v3")) return {"linux", "amd64", "v3"};
  if (__builtin_cpu_supports("x86-64-v2")) return {"linux", "amd64", "v2"};
#endif
  return {"linux", "amd64", "v1"};
}

std::string Platform::ToString() const {
  return variant.empty() ? fmt::format("{}/{}", os, architecture)
                         : fmt::format("{}/{}/{}", os, architecture, variant);
}

std::string_view ManifestAccept() {
  static const std::string kAccept =
      fmt::format("{}, {}, {}, {}, {}, {};q=0.9", kOciIndex, kDockerList, kOciManifest,
                  kDockerManifest, kSchema1Signed, kSchema1);
  return kAccept;
}

bool IsIndex(std::string_view media_type) {
  return media_type == kOciIndex || media_type == kDockerList;
}

Result<AnyManifest> ParseManifest(std::string_view text, std::string_view media_type,
                                  std::size_t max_layers) {
  const nlohmann::json json = CRISP_TRY(json::Parse(text, {.max_bytes = text.size() + 1}));
  const std::string own = CRISP_TRY(json::OptString(json, "mediaType"));
  const std::int64_t schema = CRISP_TRY(json::OptInt(json, "schemaVersion"));
  if (schema == 1) return AnyManifest(CRISP_TRY(ParseSchema1(text, max_layers)));
  if (schema != 2) return InvalidArgument("the manifest has the unknown schemaVersion {}", schema);
  std::string_view type = own.empty() ? media_type : std::string_view(own);
  type = type.substr(0, type.find(';'));
  // Without a type that we know, the form decides.
  const bool index = IsIndex(type) || (type != kOciManifest && type != kDockerManifest &&
                                       json.contains("manifests"));
  // A document that could be read both ways is somebody's trick.
  if (json.contains("manifests") && (json.contains("layers") || json.contains("config")))
    return InvalidArgument("the manifest is an image and an index at once");
  if (index) return AnyManifest(CRISP_TRY(ParseIndex(json)));
  return AnyManifest(CRISP_TRY(ParseImage(json, max_layers)));
}

Result<std::vector<Descriptor>> Candidates(const Index& index, const Platform& platform) {
  struct Ranked {
    int rank;
    const Descriptor* descriptor;
  };
  std::vector<Ranked> fit;
  std::string offered;
  for (const Index::Entry& entry : index.entries) {
    int rank = Rank(entry.platform, platform);
    // An index in an index is looked into when nothing else fits.
    if (rank == 0 && IsIndex(entry.descriptor.media_type)) rank = -2;
    if (rank != -1) fit.push_back({rank, &entry.descriptor});
    if (entry.platform.os == "unknown" || offered.size() > 300) continue;  // attestations
    offered += (offered.empty() ? "" : ", ") + entry.platform.ToString();
  }
  if (fit.empty())
    return NotFound("the image has no variant for {}, only for: {}", platform.ToString(),
                    offered.empty() ? "nothing" : offered);
  std::stable_sort(fit.begin(), fit.end(),
                   [](const Ranked& a, const Ranked& b) { return a.rank > b.rank; });
  std::vector<Descriptor> candidates;
  for (const Ranked& each : fit) candidates.push_back(*each.descriptor);
  return candidates;
}

Result<Descriptor> ChooseEntry(const Index& index, const Platform& platform) {
  return CRISP_TRY(Candidates(index, platform)).front();
}

}  // namespace crisp::imaged
