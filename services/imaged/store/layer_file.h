#pragma once

#include <string>

#include "libs/archive/tree_reader.h"
#include "libs/base/status.h"

// What a file of a layer may have beside its contents.
namespace crisp::imaged {

/// overlayfs's mark (mounted with `userxattr`), "y" on a directory: nothing below it shows.
inline constexpr const char* kOpaqueXattr = "user.overlay.opaque";

/// Those of these extended attributes that a layer may have, to an open file. `path` is for errors.
Status WriteXattrs(const archive::Xattrs& xattrs, int to, const std::string& path);

}  // namespace crisp::imaged
