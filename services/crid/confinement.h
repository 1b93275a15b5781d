#pragma once

#include <optional>

#include "libs/base/result.h"
#include "libs/daemon/daemon.h"

namespace crisp::crid {

/// What it keeps of its privileges; nothing when crid.confine is off.
Result<std::optional<os::ConfinePlan>> PlanConfinement(const settings::Settings& settings,
                                                       const daemon::Options& options);

}  // namespace crisp::crid
