#pragma once

#include <string>

#include "libs/base/result.h"
#include "libs/os/unique_fd.h"

namespace crisp::os {

/// A layer that is an image: a regular file.
bool IsImage(const std::string& path);

/// The EROFS image in a file, mounted read-only but attached nowhere: it is there as long as the
/// descriptor and what takes it as a layer, and nothing has to be taken away after a crash.
/// `userns` (a descriptor, or -1): its files show the owners that this user namespace gives them.
/// kFailedPrecondition names what this kernel lacks.
Result<UniqueFd> MountImage(const std::string& path, int userns = -1);

/// Whether overlayfs takes what MountImage makes as a layer, as far as can be told without
/// mounting: by the kernel's release (ours where empty) and its file systems. Ok, or what is
/// missing.
Status CheckImageLayers(const std::string& release = "", const std::string& proc = "/proc");

}  // namespace crisp::os
