#pragma once

#include <string>

#include "libs/base/call_context.h"
#include "libs/base/result.h"

namespace crisp::imaged {

/// Writes the tree that the unpacker left as a new file `image` in the form of EROFS: names, kinds,
/// modes, owners, times, hard links, contents, overlayfs's marks and the extended attributes that a
/// layer may have. The same tree makes the same bytes, whatever the order on disk. Holes stay
/// holes; contents share the tree's blocks where the file system can. Not synced.
///
/// Written here, not by mkfs.erofs, as that of the distributions in use writes a sparse file's
/// zeros out, knows no time before 1970, and would be a program more to run behind our confinement.
///
/// False, without a file: a form that holds no such tree (more than `max_files` files, which would
/// take too much memory; more than 60 KiB of attributes of one file). The tree then stays what it
/// is.
Result<bool> WriteErofs(const CallContext& cc, const std::string& tree, const std::string& image,
                        std::size_t max_files = 1'000'000);

}  // namespace crisp::imaged
