#pragma once

#include <string>
#include <string_view>

#include "libs/base/result.h"

namespace crisp::ref {

/// A parsed and normalised image reference.
struct ImageRef {
  std::string domain;  // in lower case: "docker.io", "localhost:5000"
  std::string path;    // "library/busybox"
  std::string tag;  // "latest" when neither tag nor digest was given, else as given; may be empty
  std::string digest;  // "sha256:…", or empty

  /// "docker.io/library/busybox"
  std::string Name() const;
  /// "docker.io/library/busybox:latest"; without a tag as Name().
  std::string Tagged() const;
  /// "docker.io/library/busybox@sha256:…"; without a digest as Name().
  std::string Digested() const;
  /// All of it: name[:tag][@digest].
  std::string ToString() const;

  bool operator==(const ImageRef&) const = default;
};

/// kInvalidArgument with the reason: empty, upper-case path, bad characters, too long (255 for the
/// name), a bad tag or digest, or 64 hexadecimal characters (an id is not a name).
Result<ImageRef> Parse(std::string_view text);

/// A name, or the beginning of one, with its registry's part in lower case: what a configuration
/// writes for ImageRef::Name() to be compared with.
std::string LowerDomain(std::string_view name);

/// 1 to 64 lower-case hexadecimal characters, or "sha256:" and 64 of them: could be an image id
/// (or the beginning of one) rather than a name.
bool LooksLikeId(std::string_view text);

}  // namespace crisp::ref
