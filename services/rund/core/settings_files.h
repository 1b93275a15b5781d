#pragma once

#include "libs/base/status.h"
#include "services/rund/config.h"

// The files that the settings name. An error begins with the key that names the file.
namespace crisp::rund {

/// Those without which rund does not start: every pod would fail, or lose what was promised.
/// kInvalidArgument: what is in one; kNotFound and others: it cannot be read; kFailedPrecondition:
/// this machine does not have what the settings want.
Status CheckNeededFiles(const Config& config);

/// All of them: also those that one handler needs, or that may come later (a certificate).
Status CheckFiles(const Config& config);

}  // namespace crisp::rund
