#pragma once

#include <memory>

#include "libs/base/result.h"
#include "libs/daemon/daemon.h"

namespace crisp::rund {

/// All of rund inside the frame that every daemon shares.
Result<std::unique_ptr<daemon::App>> MakeApp(daemon::Daemon& daemon);

}  // namespace crisp::rund
