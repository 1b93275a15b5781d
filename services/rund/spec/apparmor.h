#pragma once

#include <string>

#include "cri/v1/api.pb.h"
#include "libs/base/result.h"
#include "services/rund/spec/builder.h"

namespace crisp::rund {

/// Whether the kernel has an AppArmor profile of this name. `list` is its list of loaded ones.
Result<bool> IsAppArmorLoaded(const std::string& list, const std::string& name);

/// The AppArmor profile for the process; "" = none. RuntimeDefault, and nothing said at all, is the
/// node's default profile where the kernel has AppArmor (nothing said: and that profile). The
/// deprecated field counts when the message is absent. Privileged containers have none.
/// kFailedPrecondition: a profile is asked for and not loaded, or named and there is no AppArmor,
/// or none can tell what is loaded (with nothing asked for that is a note).
Result<std::string> AppArmorProfile(const runtime::v1::LinuxContainerSecurityContext& security,
                                    bool privileged, const SpecDefaults& defaults,
                                    std::vector<std::string>& notes);

}  // namespace crisp::rund
