#pragma once

#include <memory>

#include "libs/base/result.h"
#include "libs/daemon/daemon.h"

namespace crisp::imaged {

/// The composition root of crisp-imaged: opens the store, recovers, makes the services.
Result<std::unique_ptr<daemon::App>> MakeApp(daemon::Daemon& daemon);

}  // namespace crisp::imaged
