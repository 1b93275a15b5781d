#pragma once

#include "cri/v1/api.pb.h"

namespace crisp::rund {

/// What is in force after an update: of `now` what `change` says nothing of (zero, empty, an absent
/// page size or key), else what it says. A memory limit that comes without its swap keeps the same
/// amount of swap.
runtime::v1::LinuxContainerResources MergeResources(
    const runtime::v1::LinuxContainerResources& now,
    const runtime::v1::LinuxContainerResources& change);

}  // namespace crisp::rund
