#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/status.h"

namespace crisp::netd {

/// Ends the plugins (and what they started) that an earlier life of netd left running, found by
/// having all of `variables` ("CNI_CONTAINERID=…") in their environment, and waits until none is
/// left: an ADD that ends after our DEL would leak what it took. They get `grace` to end by
/// themselves, then they are killed: host-local, killed at the wrong moment, leaves an address that
/// is nobody's, which no DEL gives back. `since`: nothing of it can have
/// begun before (the time since the boot; 0: nobody knows). What is older, or in a container, is
/// not looked into: the environment of a process that stands in a page fault is not to be had, and
/// who asks for it waits with it. kDeadlineExceeded when one does not die.
Status EndLeftovers(const CallContext& cc, const std::vector<std::string>& variables,
                    std::chrono::nanoseconds since = {}, std::chrono::nanoseconds grace = {},
                    const std::string& proc_root = "/proc");

/// The time since the boot, on the clock of `since`.
std::chrono::nanoseconds SinceBoot();

}  // namespace crisp::netd
