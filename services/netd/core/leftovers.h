#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/status.h"

namespace crisp::netd {

/// Kills the plugins (and what they started) that an earlier life of netd left running, found by
/// having all of `variables` ("CNI_CONTAINERID=…") in their environment, and waits until none is
/// left: an ADD that ends after our DEL would leak what it took. `since`: nothing of it can have
/// begun before (the time since the boot; 0: nobody knows). What is older, or in a container, is
/// not looked into: the environment of a process that stands in a page fault is not to be had, and
/// who asks for it waits with it. kDeadlineExceeded when one does not die.
Status EndLeftovers(const CallContext& cc, const std::vector<std::string>& variables,
                    std::chrono::nanoseconds since = {}, const std::string& proc_root = "/proc");

/// The time since the boot, on the clock of `since`.
std::chrono::nanoseconds SinceBoot();

}  // namespace crisp::netd
