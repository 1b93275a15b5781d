#pragma once

#include <cstdint>
#include <string>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/os/beneath.h"

namespace crisp::rund {

/// Who the container's root is on the host.
struct HostOwner {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

/// The anonymous directory for one VOLUME of an image: a copy of what the image has at that path
/// (with owners, modes, times, extended attributes and hard links), or an empty directory of
/// `root`'s. Made at `target`, whole or not at all; one that is there already is left as it is.
/// kDeadlineExceeded, kCancelled: `cc` was over before all was copied.
Status MakeVolume(const CallContext& cc, const os::Beneath& rootfs,
                  const std::string& container_path, const std::string& target,
                  const HostOwner& root);

}  // namespace crisp::rund
