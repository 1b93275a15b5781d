#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "libs/base/result.h"
#include "libs/digest/digest.h"
#include "services/imaged/core/image_source.h"
#include "services/imaged/core/schema1.h"

namespace crisp::imaged {

/// Where a zstd:chunked layer has what is beside its tar; see chunked.h.
struct ChunkedPlaces {
  BlobRange toc;
  digest::Digest toc_digest;
  BlobRange tar_split;  // of no size: it has none
};

/// A blob as a manifest names it.
struct Descriptor {
  std::string media_type;
  digest::Digest digest;
  std::uint64_t size = 0;
  /// A layer that its maker does not let registries pass on: they may have it all the same.
  bool foreign = false;
  /// Of an artifact: the blob is the contents of this file ("a/b"). "": it is a layer's tar.
  std::string file;
  std::optional<ChunkedPlaces> chunked;
};

struct Platform {
  std::string os;
  std::string architecture;
  std::string variant;  // "" where there is none

  /// What this machine runs; for amd64 the variant is the x86-64 level ("v1" to "v4").
  static Platform Host();
  std::string ToString() const;
};

/// OCI image manifest or Docker schema 2.
struct Manifest {
  enum class Kind {
    kImage,
    kBare,      // layers of an image, and OCI's empty configuration
    kArtifact,  // anything else: its blobs are files
  };
  Kind kind = Kind::kImage;
  std::string artifact_type;  // of an artifact
  std::map<std::string, std::string> annotations;
  Descriptor config;
  std::vector<Descriptor> layers;  // lowest first
};

/// OCI index or Docker manifest list.
struct Index {
  struct Entry {
    Descriptor descriptor;
    Platform platform;  // all empty: it names none
  };
  std::vector<Entry> entries;
};

using AnyManifest = std::variant<Manifest, Index, Schema1>;

/// The media types to ask a registry for, as one Accept header.
std::string_view ManifestAccept();

/// Annotations beyond 16 KiB are left out, the last by name first.
///
/// `media_type` is the answer's Content-Type; the document's own mediaType, where it has one, wins.
/// kInvalidArgument: malformed, also what an artifact wants a file to be called; kUnimplemented:
/// encrypted layers, kinds of layers that we do not know; kResourceExhausted: more than
/// `max_layers`.
Result<AnyManifest> ParseManifest(std::string_view text, std::string_view media_type,
                                  std::size_t max_layers);

/// The entries that may lead to `platform`, the best first: same OS and architecture, the highest
/// variant that the machine still runs, then those without a platform, then other indexes.
/// kNotFound names what there is.
Result<std::vector<Descriptor>> Candidates(const Index& index, const Platform& platform);

/// The first of them.
Result<Descriptor> ChooseEntry(const Index& index, const Platform& platform);
bool IsIndex(std::string_view media_type);

}  // namespace crisp::imaged
