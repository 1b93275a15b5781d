#pragma once

#include <string>
#include <variant>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "services/imaged/core/image_source.h"
#include "services/imaged/core/limits.h"
#include "services/imaged/core/manifest.h"

namespace crisp::imaged {

struct ResolveLimits {
  Bytes max_manifest_size = MiB(4);
  std::size_t max_layers = 127;
};

/// The image of an index (or of none) for a platform.
struct ResolvedImage {
  /// All documents on the way, the one that the image's name stands for first: what a signature may
  /// be of.
  std::vector<digest::Digest> documents;
  std::variant<Manifest, Schema1> image;
};

/// From a manifest or an index to the image for `platform`. Indexes in indexes are followed, to a
/// depth and a number of documents. Errors as ParseManifest, Candidates and the source.
Result<ResolvedImage> ResolveImage(const CallContext& cc, ImageSource& source,
                                   const FetchedManifest& first, const Platform& platform,
                                   const ResolveLimits& limits);

struct ConvertedImage {
  Manifest manifest;
  std::string config;
};

struct ProbeLimits {
  Bytes max_layer_size = GiB(64);  // unpacked
  Expansion expansion;
};

/// An image's layers without a configuration, with one that says no more than which they are. As
/// Convert, each is read once.
Result<ConvertedImage> ConvertBare(const CallContext& cc, ImageSource& source, const Manifest& bare,
                                   const ProbeLimits& limits);

/// An artifact as an image whose layers hold one file each. Their diff ids stand for name and
/// contents, not for a tar. `manifest`: the artifact's own, which the id shall stand for.
ConvertedImage ConvertArtifact(const Manifest& artifact, const digest::Digest& manifest);

/// An image of Docker's first format as it would be in a later one. Each layer is read once, to
/// learn its size and diff id. kResourceExhausted: a layer is larger than the limits.
Result<ConvertedImage> Convert(const CallContext& cc, ImageSource& source, const Schema1& old,
                               const ProbeLimits& limits);

}  // namespace crisp::imaged
