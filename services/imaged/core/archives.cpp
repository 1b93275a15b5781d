#include "services/imaged/core/archives.h"

#include <algorithm>
#include <optional>

#include "libs/archive/tar_writer.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "services/imaged/core/layer_tar.h"

namespace crisp::imaged {
namespace {

constexpr std::string_view kOciManifest = "application/vnd.oci.image.manifest.v1+json";
constexpr std::string_view kOciIndex = "application/vnd.oci.image.index.v1+json";
constexpr std::string_view kOciConfig = "application/vnd.oci.image.config.v1+json";
constexpr std::string_view kOciLayer = "application/vnd.oci.image.layer.v1.tar";

struct WrittenLayer {
  std::string path;
  digest::Digest digest;  // of the tar, which is not compressed: the diff id too
  std::uint64_t size = 0;
};

Result<WrittenLayer> Measure(const CallContext& cc, std::string path) {
  WrittenLayer layer;
  layer.path = std::move(path);
  digest::Sha256 sum;
  CRISP_TRY(WriteLayerTar(cc, layer.path, [&sum, &layer](std::string_view bytes) {
    sum.Update(bytes);
    layer.size += bytes.size();
    return Status::Ok();
  }));
  layer.digest = sum.Finish();
  return layer;
}

std::string BlobName(const digest::Digest& digest) {
  return "blobs/sha256/" + std::string(digest.hex());
}

Status PutFile(const std::string& name, std::string_view text, const Archives::Sink& sink) {
  const std::string header =
      CRISP_TRY(archive::TarHeader({.path = name, .mode = 0644, .size = text.size()}));
  CRISP_TRY(sink(header));
  CRISP_TRY(sink(text));
  return sink(archive::TarPadding(text.size()));
}

nlohmann::json DescriptorOf(std::string_view type, const digest::Digest& digest,
                            std::uint64_t size) {
  return {{"mediaType", type}, {"digest", digest.str()}, {"size", size}};
}

Status PutLayer(const CallContext& cc, const WrittenLayer& layer, const Archives::Sink& sink) {
  const std::string header = CRISP_TRY(
      archive::TarHeader({.path = BlobName(layer.digest), .mode = 0644, .size = layer.size}));
  CRISP_TRY(sink(header));
  std::uint64_t left = layer.size;
  CRISP_TRY(WriteLayerTar(cc, layer.path, [&sink, &left](std::string_view bytes) -> Status {
    if (bytes.size() > left) return DataLoss("a layer changed while it was exported");
    left -= bytes.size();
    return sink(bytes);
  }));
  if (left != 0) return DataLoss("a layer changed while it was exported");
  return sink(archive::TarPadding(layer.size));
}

}  // namespace

Result<std::vector<ImportedImage>> Archives::Import(const CallContext& cc,
                                                    archive::ChunkSource& bytes,
                                                    const std::string& name) {
  const std::shared_ptr<ArchiveSource> source = CRISP_TRY(
      ArchiveSource::Read(bytes, store_.layout().Staging(), limits_, spooled_).While("import"));
  if (!name.empty() && source->images().size() != 1)
    return InvalidArgument("the archive has {} images: one name does not do for them",
                           source->images().size());
  std::vector<ImportedImage> imported;
  for (const ArchivedImage& image : source->images()) {
    std::vector<ref::ImageRef> names;
    for (const std::string& each : name.empty() ? image.names : std::vector{name}) {
      names.push_back(
          CRISP_TRY(hosts_.Names(each).While("import: the name \"{:.256}\"", each)).front());
      if (!names.back().digest.empty())
        return InvalidArgument("import: {} has a digest: an image's name for an import has none",
                               names.back().ToString());
    }
    if (names.empty())
      names.push_back({.domain = "localhost", .path = "imported", .digest = image.manifest.str()});
    ImportedImage done;
    for (const ref::ImageRef& each : names) {
      done.id = CRISP_TRY(puller_.Import(cc, each, image.manifest.str(), source));
      done.names.push_back(each.ToString());
    }
    imported.push_back(std::move(done));
  }
  return imported;
}

Status Archives::Export(const CallContext& cc, const std::string& image, const Sink& sink) {
  const std::optional<std::string> id = CRISP_TRY(catalogue_.Resolve(image));
  const std::optional<ImageRecord> record =
      id ? CRISP_TRY(catalogue_.Find(*id)) : std::optional<ImageRecord>();
  if (!record) return NotFound("no image {}", image);
  const std::string old_config = CRISP_TRY(catalogue_.Config(record->id));
  std::vector<ChainLock> held;
  std::vector<WrittenLayer> layers;
  for (const digest::Digest& chain : CRISP_TRY(catalogue_.Layers(record->id))) {
    held.push_back(CRISP_TRY(store_.Share(cc, chain)));
    if (!CRISP_TRY(catalogue_.HasLayer(chain))) return NotFound("no image {} any more", image);
    layers.push_back(CRISP_TRY(Measure(cc, store_.PathOf(chain))));
  }

  nlohmann::json config = CRISP_TRY(json::Parse(old_config, {.max_bytes = old_config.size() + 1}));
  nlohmann::json diff_ids = nlohmann::json::array();
  nlohmann::json descriptors = nlohmann::json::array();
  nlohmann::json files = nlohmann::json::array();
  for (const WrittenLayer& layer : layers) {
    diff_ids.push_back(layer.digest.str());
    descriptors.push_back(DescriptorOf(kOciLayer, layer.digest, layer.size));
    files.push_back(BlobName(layer.digest));
  }
  config["rootfs"] = {{"type", "layers"}, {"diff_ids", std::move(diff_ids)}};
  const std::string config_text = json::Dump(config);
  const digest::Digest config_digest = digest::Sha256Digest(config_text);
  const nlohmann::json manifest = {
      {"schemaVersion", 2},
      {"mediaType", kOciManifest},
      {"config", DescriptorOf(kOciConfig, config_digest, config_text.size())},
      {"layers", std::move(descriptors)}};
  const std::string manifest_text = json::Dump(manifest);
  const digest::Digest manifest_digest = digest::Sha256Digest(manifest_text);

  nlohmann::json entries = nlohmann::json::array();
  const nlohmann::json entry = DescriptorOf(kOciManifest, manifest_digest, manifest_text.size());
  for (const std::string& tag : record->tags) {
    nlohmann::json named = entry;
    named["annotations"] = {{"io.containerd.image.name", tag},
                            {"org.opencontainers.image.ref.name", tag}};
    entries.push_back(std::move(named));
  }
  if (entries.empty()) entries.push_back(entry);
  const nlohmann::json index = {
      {"schemaVersion", 2}, {"mediaType", kOciIndex}, {"manifests", std::move(entries)}};
  const nlohmann::json loadable = {{"Config", BlobName(config_digest)},
                                   {"RepoTags", record->tags},
                                   {"Layers", std::move(files)}};
  nlohmann::json docker = nlohmann::json::array();
  docker.push_back(loadable);

  CRISP_TRY(PutFile("oci-layout", R"({"imageLayoutVersion":"1.0.0"})", sink));
  CRISP_TRY(PutFile("index.json", json::Dump(index), sink));
  CRISP_TRY(PutFile("manifest.json", json::Dump(docker), sink));
  CRISP_TRY(PutFile(BlobName(manifest_digest), manifest_text, sink));
  CRISP_TRY(PutFile(BlobName(config_digest), config_text, sink));
  std::vector<digest::Digest> written;
  for (const WrittenLayer& layer : layers) {
    if (std::find(written.begin(), written.end(), layer.digest) != written.end()) continue;
    CRISP_TRY(PutLayer(cc, layer, sink));
    written.push_back(layer.digest);
  }
  return sink(archive::TarEnd());
}

}  // namespace crisp::imaged
