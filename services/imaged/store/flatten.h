#pragma once

#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"

namespace crisp::imaged {

/// Copies what overlayfs would show of `layers` (topmost first, trees or images) into the empty
/// directory `target`: for the drivers vfs and btrfs. Shares blocks where the file system
/// can. Device nodes that this process may not make are left out.
Status Flatten(const CallContext& cc, const std::vector<std::string>& layers,
               const std::string& target);

}  // namespace crisp::imaged
