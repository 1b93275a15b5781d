#pragma once

#include <string>

#include "libs/base/call_context.h"
#include "libs/base/status.h"

namespace crisp::rund {

/// Loads the profile of this name from the file of the same name in /etc/apparmor.d (else
/// /usr/share/crisp/apparmor) with apparmor_parser, unless the kernel has it already; `list` is the
/// kernel's list. kNotFound: no such file, or no apparmor_parser; kFailedPrecondition has the
/// parser's words.
Status LoadAppArmorProfile(const CallContext& cc, const std::string& list, const std::string& name);

}  // namespace crisp::rund
