#pragma once

#include <map>
#include <string>
#include <string_view>

#include "libs/base/result.h"

// What a file of a layer may have beside its contents.
namespace crisp::imaged {

/// overlayfs's mark (mounted with `userxattr`), "y" on a directory: nothing below it shows.
inline constexpr const char* kOpaqueXattr = "user.overlay.opaque";

/// True for the extended attributes that an image may bring: others would speak to overlayfs in our
/// name, or are the host's to give.
bool IsLayerXattr(std::string_view name);

/// All extended attributes of an open file or directory. `path` is for errors, here and below.
Result<std::map<std::string, std::string>> ReadXattrs(int fd, const std::string& path);
/// Those of them that a layer may have, on another one.
Status WriteXattrs(const std::map<std::string, std::string>& xattrs, int to,
                   const std::string& path);

}  // namespace crisp::imaged
