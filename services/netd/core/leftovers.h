#pragma once

#include <string>

#include "libs/base/call_context.h"
#include "libs/base/ids.h"
#include "libs/base/status.h"

namespace crisp::netd {

/// Kills the plugins (and what they started) that an earlier life of netd left running for a pod,
/// found by CNI_CONTAINERID in their environment, and waits until they are gone: an ADD that ends
/// after our DEL would leak what it took. kDeadlineExceeded when one does not die.
Status EndLeftovers(const CallContext& cc, const PodId& pod,
                    const std::string& proc_root = "/proc");

}  // namespace crisp::netd
