#pragma once

#include <string>

#include "libs/base/result.h"
#include "libs/os/beneath.h"

namespace crisp::rund {

/// The anonymous directory for one VOLUME of an image: a copy of what the image has at that path
/// (with owners, modes and times), or an empty directory. Made at `target`, whole or not at all;
/// one that is there already is left as it is.
Status MakeVolume(const os::Beneath& rootfs, const std::string& container_path,
                  const std::string& target);

}  // namespace crisp::rund
