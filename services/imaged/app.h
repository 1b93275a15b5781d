#pragma once

#include <memory>

#include "libs/base/result.h"
#include "libs/daemon/daemon.h"

namespace crisp::imaged {

/// The composition root of crisp-imaged: opens the store, recovers, makes the services.
Result<std::unique_ptr<daemon::App>> MakeApp(daemon::Daemon& daemon);

/// What imaged would say of these settings: the policy and registries.conf that they name are in
/// order. What this process may not read is for others to tell.
Status CheckSettings(const settings::Settings& settings, const daemon::Options& options);

}  // namespace crisp::imaged
