#pragma once

#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/status.h"

namespace crisp::netd {

/// Kills the plugins (and what they started) that an earlier life of netd left running, found by
/// having all of `variables` ("CNI_CONTAINERID=…") in their environment, and waits until none is
/// left: an ADD that ends after our DEL would leak what it took. kDeadlineExceeded when one does
/// not die.
Status EndLeftovers(const CallContext& cc, const std::vector<std::string>& variables,
                    const std::string& proc_root = "/proc");

}  // namespace crisp::netd
