#pragma once

#include <nlohmann/json.hpp>

#include "libs/base/status.h"
#include "services/rund/spec/user.h"

namespace crisp::rund {

/// Whether we know all of a CDI "containerEdits" object. kInvalidArgument names what we do not.
Status CheckCdiEdits(const nlohmann::json& edits);

/// Writes checked edits into an OCI spec. What a device node lacks is taken from the host's; it
/// belongs to the container's user where the edit does not say to whom. kNotFound: no such device
/// on the host.
Status ApplyCdiEdits(const nlohmann::json& edits, const ResolvedUser& user, bool privileged,
                     nlohmann::json& spec);

}  // namespace crisp::rund
