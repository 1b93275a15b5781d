#include "services/imaged/core/manifest.h"

#include <sys/utsname.h>

#include <algorithm>
#include <limits>

#include "libs/base/try.h"
#include "libs/json/json.h"

namespace crisp::imaged {
namespace {

constexpr std::string_view kOciManifest = "application/vnd.oci.image.manifest.v1+json";
constexpr std::string_view kOciIndex = "application/vnd.oci.image.index.v1+json";
constexpr std::string_view kOciConfig = "application/vnd.oci.image.config.v1+json";
constexpr std::string_view kDockerManifest = "application/vnd.docker.distribution.manifest.v2+json";
constexpr std::string_view kDockerList =
    "application/vnd.docker.distribution.manifest.list.v2+json";
constexpr std::string_view kDockerConfig = "application/vnd.docker.container.image.v1+json";
constexpr std::size_t kMaxEntries = 1024;
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

Result<Manifest> ParseImage(const nlohmann::json& json, std::size_t max_layers) {
  Manifest manifest;
  const nlohmann::json config = CRISP_TRY(json::GetObject(json, "config"));
  manifest.config = CRISP_TRY(ParseDescriptor(config).While("config"));
  const std::string& type = manifest.config.media_type;
  if (!type.empty() && type != kOciConfig && type != kDockerConfig)
    return Unimplemented("this is not a container image but an artifact of the type {:.128}", type);
  const nlohmann::json layers = CRISP_TRY(json::GetArray(json, "layers"));
  if (layers.size() > max_layers)
    return ResourceExhausted("the image has {} layers, more than the {} allowed", layers.size(),
                             max_layers);
  for (const nlohmann::json& layer : layers) {
    manifest.layers.push_back(CRISP_TRY(ParseDescriptor(layer).While("layer")));
    if (manifest.layers.back().media_type.ends_with("+encrypted"))
      return Unimplemented("layer {} is encrypted, which is not supported",
                           manifest.layers.back().digest.str());
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
#if defined(__x86_64__)
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
      fmt::format("{}, {}, {}, {}", kOciIndex, kDockerList, kOciManifest, kDockerManifest);
  return kAccept;
}

Result<ManifestOrIndex> ParseManifest(std::string_view text, std::string_view media_type,
                                      std::size_t max_layers) {
  const nlohmann::json json = CRISP_TRY(json::Parse(text, {.max_bytes = text.size() + 1}));
  const std::string own = CRISP_TRY(json::OptString(json, "mediaType"));
  const std::int64_t schema = CRISP_TRY(json::OptInt(json, "schemaVersion"));
  if (schema == 1) return Unimplemented("Docker schema 1 manifests are not supported");
  if (schema != 2) return InvalidArgument("the manifest has the unknown schemaVersion {}", schema);
  std::string_view type = own.empty() ? media_type : std::string_view(own);
  type = type.substr(0, type.find(';'));
  // Without a type that we know, the form decides.
  const bool index =
      type == kOciIndex || type == kDockerList ||
      (type != kOciManifest && type != kDockerManifest && json.contains("manifests"));
  // A document that could be read both ways is somebody's trick.
  if (json.contains("manifests") && (json.contains("layers") || json.contains("config")))
    return InvalidArgument("the manifest is an image and an index at once");
  if (index) return ManifestOrIndex(CRISP_TRY(ParseIndex(json)));
  return ManifestOrIndex(CRISP_TRY(ParseImage(json, max_layers)));
}

Result<Descriptor> ChooseEntry(const Index& index, const Platform& platform) {
  const Index::Entry* best = nullptr;
  int best_rank = -1;
  std::string offered;
  for (const Index::Entry& entry : index.entries) {
    const int rank = Rank(entry.platform, platform);
    if (rank > best_rank) {
      best = &entry;
      best_rank = rank;
    }
    if (entry.platform.os == "unknown" || offered.size() > 300) continue;  // attestations
    offered += (offered.empty() ? "" : ", ") + entry.platform.ToString();
  }
  if (best == nullptr)
    return NotFound("the image has no variant for {}, only for: {}", platform.ToString(),
                    offered.empty() ? "nothing" : offered);
  return best->descriptor;
}

}  // namespace crisp::imaged
