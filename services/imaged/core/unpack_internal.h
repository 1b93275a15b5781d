#pragma once

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <array>
#include <ctime>
#include <string_view>

#include "services/imaged/core/unpack.h"

// What the two halves of the unpacker share.
namespace crisp::imaged {

namespace internal {

inline constexpr const char* kOpaqueXattr = "user.overlay.opaque";

/// Access time and modification time.
inline std::array<timespec, 2> Both(const timespec& time) { return {time, time}; }

inline bool IsWhiteout(const struct stat& info) {
  return S_ISCHR(info.st_mode) && info.st_rdev == 0;
}

/// What a layer may set: see Unpacker.
inline bool XattrAllowed(std::string_view name) {
  if (name == "security.capability") return true;
  return name.starts_with("user.") && !name.starts_with("user.overlay.");
}

}  // namespace internal

/// Something in a layer below.
struct Unpacker::Found {
  os::UniqueFd directory;  // that holds it; invalid: nothing was found
  std::string name;
  struct stat info {};
};

}  // namespace crisp::imaged
