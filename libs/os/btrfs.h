#pragma once

#include <sys/stat.h>

#include <ctime>
#include <optional>
#include <string>

#include "libs/base/result.h"

// Subvolumes of btrfs. Whoever may write to a directory may make them in it; they are directories
// with a device number of their own, and those that are empty go by rmdir(2).
namespace crisp::os {

/// Whether an existing path lies on btrfs.
Result<bool> IsOnBtrfs(const std::string& path);

/// Whether this is the root directory of a subvolume.
bool IsSubvolume(const std::string& path);
/// A new, empty subvolume. kAlreadyExists: there is something of that name; kInvalidArgument or
/// kUnimplemented: its directory is not on btrfs.
Status MakeSubvolume(const std::string& path);
/// A new subvolume `path` with all that is in the subvolume `source`, of which it shares the space
/// until one of the two changes. Errors as MakeSubvolume.
Status SnapshotSubvolume(const std::string& source, const std::string& path);
/// Takes a subvolume away with all that it holds, at once. False: it is none, or it takes
/// CAP_SYS_ADMIN (or the mount option user_subvol_rm_allowed), which we do not have: RemoveTree
/// does it then.
Result<bool> DeleteSubvolume(const std::string& path);
/// When the subvolume was made, of which `fd` is the root directory; nothing for any other
/// directory. Of a snapshot: what has a later ctime was changed in it.
std::optional<timespec> SubvolumeMade(int fd);
/// Whether a file was changed after `since`; of nothing everything was.
bool ChangedSince(const struct stat& file, const std::optional<timespec>& since);

}  // namespace crisp::os
