#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "libs/base/status.h"

namespace crisp::os {

/// Readers see the old file or the new one, never half: a temporary file in the same directory,
/// then rename(2). With `sync` also fsync of the file and its directory, so that it outlives a
/// power cut.
Status WriteFileAtomic(const std::string& path, std::string_view text, mode_t mode = 0644,
                       bool sync = false);

}  // namespace crisp::os
