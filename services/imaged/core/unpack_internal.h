#pragma once

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <array>
#include <cstdint>
#include <ctime>
#include <memory>
#include <string>

#include "services/imaged/core/unpack.h"
#include "services/imaged/store/layer_reader.h"

// What the parts of the unpacker share.
namespace crisp::imaged {

namespace internal {

/// Access time and modification time.
inline std::array<timespec, 2> Both(const timespec& time) { return {time, time}; }

/// openat2: beneath `root`, through no symbolic link at all. -1 and errno.
int OpenBeneath(int root, const std::string& path, std::uint64_t flags);

inline bool IsWhiteout(const struct stat& info) {
  return S_ISCHR(info.st_mode) && info.st_rdev == 0;
}

}  // namespace internal

/// Something in a layer below.
struct Unpacker::Found {
  std::shared_ptr<archive::TreeReader> layer;  // null: nothing was found
  archive::TreeNode node;
};

}  // namespace crisp::imaged
