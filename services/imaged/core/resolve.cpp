#include "services/imaged/core/resolve.h"

#include <map>
#include <memory>

#include "libs/archive/decompress.h"
#include "libs/base/try.h"
#include "services/imaged/core/image_config.h"

namespace crisp::imaged {
namespace {

constexpr int kMaxDepth = 4;       // of indexes in indexes
constexpr int kMaxDocuments = 16;  // looked at for one image
constexpr int kMaxProbes = 3;      // of one layer, when it breaks off
constexpr std::size_t kPiece = std::size_t{256} << 10U;

class Resolver {
 public:
  Resolver(const CallContext& cc, ImageSource& source, const Platform& platform,
           const ResolveLimits& limits)
      : cc_(cc), source_(source), platform_(platform), limits_(limits) {}

  Result<ResolvedImage> Resolve(const FetchedManifest& document, int depth);

 private:
  Result<ResolvedImage> Descend(const Index& index, int depth);

  const CallContext& cc_;
  ImageSource& source_;
  const Platform& platform_;
  const ResolveLimits& limits_;
  int documents_ = 0;
};

/// A blob as pieces for the decompressor; hashes and counts what passes.
class HashedBlob final : public archive::ChunkSource {
 public:
  HashedBlob(const CallContext& cc, BlobReader& reader) : cc_(cc), reader_(reader) {}
  Result<std::string_view> Next() override {
    std::size_t have = 0;
    while (have < piece_.size()) {
      const std::size_t count = CRISP_TRY(reader_.Read(cc_, std::span(piece_).subspan(have)));
      if (count == 0) break;
      have += count;
    }
    const std::string_view piece(piece_.data(), have);
    sum_.Update(piece);
    size_ += have;
    return piece;
  }
  std::uint64_t size() const { return size_; }
  digest::Digest Finish() { return sum_.Finish(); }

 private:
  const CallContext& cc_;
  BlobReader& reader_;
  std::string piece_ = std::string(kPiece, '\0');
  std::uint64_t size_ = 0;
  digest::Sha256 sum_;
};

struct Probe {
  std::uint64_t size = 0;
  digest::Digest diff_id;
};

Result<Probe> ProbeOnce(const CallContext& cc, ImageSource& source, const digest::Digest& blob,
                        const ProbeLimits& limits) {
  const std::unique_ptr<BlobReader> reader = CRISP_TRY(source.OpenBlob(cc, blob, BlobRange()));
  HashedBlob bytes(cc, *reader);
  archive::PeekSource peek(bytes);
  const std::string_view head = CRISP_TRY(peek.Peek());
  const archive::Compression kind = CRISP_TRY(archive::DetectCompression(head));
  const auto plain = archive::MakeDecompressor(kind, peek);
  std::string piece(kPiece, '\0');
  digest::Sha256 sum;
  std::uint64_t total = 0;
  while (const std::size_t count = CRISP_TRY(plain->Read(piece))) {
    sum.Update(std::string_view(piece.data(), count));
    total += count;
    if (total > limits.max_layer_size.count())
      return ResourceExhausted("the layer unpacks to more than {} bytes",
                               limits.max_layer_size.count());
    CRISP_TRY(limits.expansion.Check(bytes.size(), total));
  }
  while (!CRISP_TRY(peek.Next()).empty()) {
  }
  const digest::Digest found = bytes.Finish();
  if (found != blob) return DataLoss("the blob {} has the digest {}", blob.str(), found.str());
  return Probe{bytes.size(), sum.Finish()};
}

Result<Probe> ProbeLayer(const CallContext& cc, ImageSource& source, const digest::Digest& blob,
                         const ProbeLimits& limits) {
  for (int tries = 1;; ++tries) {
    Result<Probe> probe = ProbeOnce(cc, source, blob, limits);
    if (probe.ok() || probe.code() != Code::kUnavailable || tries >= kMaxProbes)
      return std::move(probe).While("layer {}", blob.str());
  }
}

/// The layers' diff ids; each gets the size that it has.
Result<std::vector<digest::Digest>> ProbeLayers(const CallContext& cc, ImageSource& source,
                                                const ProbeLimits& limits,
                                                std::vector<Descriptor>& layers) {
  std::vector<digest::Digest> diff_ids;
  std::map<digest::Digest, Probe> known;
  for (Descriptor& layer : layers) {
    auto probe = known.find(layer.digest);
    if (probe == known.end()) {
      Probe found = CRISP_TRY(ProbeLayer(cc, source, layer.digest, limits));
      probe = known.emplace(layer.digest, std::move(found)).first;
    }
    diff_ids.push_back(probe->second.diff_id);
    layer.size = probe->second.size;
  }
  return diff_ids;
}

ConvertedImage WithConfig(Manifest manifest, std::string config) {
  manifest.config.digest = digest::Sha256Digest(config);
  manifest.config.size = config.size();
  return {std::move(manifest), std::move(config)};
}

Result<ResolvedImage> Resolver::Descend(const Index& index, int depth) {
  if (depth >= kMaxDepth)
    return InvalidArgument("the image's indexes are nested deeper than {}", kMaxDepth);
  Status last = NotFound("the index is empty");
  for (const Descriptor& each : CRISP_TRY(Candidates(index, platform_))) {
    if (++documents_ > kMaxDocuments)
      return InvalidArgument("the image's indexes lead to more than {} documents", kMaxDocuments);
    const FetchedManifest next =
        CRISP_TRY(source_.Manifest(cc_, each.digest.str(), limits_.max_manifest_size));
    Result<ResolvedImage> found = Resolve(next, depth + 1);
    // Only an index of other platforms is a reason to look further.
    if (found.ok() || found.code() != Code::kNotFound || !IsIndex(each.media_type)) return found;
    last = std::move(found).status();
  }
  return last;
}

Result<ResolvedImage> Resolver::Resolve(const FetchedManifest& document, int depth) {
  AnyManifest parsed =
      CRISP_TRY(ParseManifest(document.body, document.media_type, limits_.max_layers));
  ResolvedImage resolved;
  if (const Index* index = std::get_if<Index>(&parsed)) {
    resolved = CRISP_TRY(Descend(*index, depth));
  } else if (Schema1* old = std::get_if<Schema1>(&parsed)) {
    resolved.image = std::move(*old);
  } else {
    resolved.image = std::get<Manifest>(std::move(parsed));
  }
  resolved.documents.insert(resolved.documents.begin(), document.digest);
  return resolved;
}

}  // namespace

Result<ResolvedImage> ResolveImage(const CallContext& cc, ImageSource& source,
                                   const FetchedManifest& first, const Platform& platform,
                                   const ResolveLimits& limits) {
  return Resolver(cc, source, platform, limits).Resolve(first, 0);
}

Result<ConvertedImage> Convert(const CallContext& cc, ImageSource& source, const Schema1& old,
                               const ProbeLimits& limits) {
  Manifest manifest;
  for (const digest::Digest& blob : old.layers) {
    Descriptor layer;
    layer.digest = blob;
    manifest.layers.push_back(std::move(layer));
  }
  const std::vector<digest::Digest> diff_ids =
      CRISP_TRY(ProbeLayers(cc, source, limits, manifest.layers));
  return WithConfig(std::move(manifest), ConfigOf(old, diff_ids));
}

Result<ConvertedImage> ConvertBare(const CallContext& cc, ImageSource& source, const Manifest& bare,
                                   const ProbeLimits& limits) {
  Manifest manifest = bare;
  const Platform host = Platform::Host();
  const std::vector<digest::Digest> diff_ids =
      CRISP_TRY(ProbeLayers(cc, source, limits, manifest.layers));
  return WithConfig(std::move(manifest),
                    ConfigText({{"os", host.os}, {"architecture", host.architecture}}, diff_ids));
}

ConvertedImage ConvertArtifact(const Manifest& artifact, const digest::Digest& manifest) {
  std::vector<digest::Digest> diff_ids;
  for (const Descriptor& blob : artifact.layers)
    diff_ids.push_back(digest::Sha256Digest(
        fmt::format("crisp artifact file\n{}\n{}", blob.file, blob.digest.str())));
  return WithConfig(
      artifact, ConfigText({{"artifactType", artifact.artifact_type}, {"artifact", manifest.str()}},
                           diff_ids));
}

}  // namespace crisp::imaged
