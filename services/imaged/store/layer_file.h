#pragma once

#include <string>
#include <string_view>

#include "libs/base/call_context.h"
#include "libs/base/status.h"

// What a file of a layer may have, and how it is copied.
namespace crisp::imaged {

/// overlayfs's mark (mounted with `userxattr`), "y" on a directory: nothing below it shows.
inline constexpr const char* kOpaqueXattr = "user.overlay.opaque";

/// The extended attributes of an open file or directory that a layer may have. `path` is for
/// errors, here and below.
Status CopyXattrs(int from, int to, const std::string& path);

/// The contents of an open file into an empty one. Holes stay holes; blocks are shared where the
/// file system can. Ends with the call.
Status CopyContents(const CallContext& cc, int from, int to, const std::string& path);

}  // namespace crisp::imaged
