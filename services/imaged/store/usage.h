#pragma once

#include <cstdint>
#include <string>

#include "libs/base/result.h"

namespace crisp::imaged {

/// What a file tree takes on disk, as du(1) counts it.
struct Usage {
  std::uint64_t bytes = 0;
  std::uint64_t inodes = 0;
};

/// Walks `path` and all below it on the same file system; of a btrfs subvolume it counts what was
/// changed since that was made, each such file as a whole; files with several links count once.
/// Something that vanishes meanwhile is left out. However deep it is, some tens of descriptors are
/// open at once. kNotFound when `path` itself is absent.
Result<Usage> MeasureTree(const std::string& path);

}  // namespace crisp::imaged
