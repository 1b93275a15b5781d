#pragma once

#include <memory>

#include "libs/base/result.h"
#include "libs/daemon/daemon.h"

namespace crisp::rund {

/// All of rund inside the frame that every daemon shares.
Result<std::unique_ptr<daemon::App>> MakeApp(daemon::Daemon& daemon);

/// What rund would say of these settings: addresses are some, and the files that they name are
/// there and in order.
Status CheckSettings(const settings::Settings& settings, const daemon::Options& options);

}  // namespace crisp::rund
