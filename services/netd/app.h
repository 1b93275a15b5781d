#pragma once

#include <memory>

#include "libs/base/result.h"
#include "libs/daemon/daemon.h"

namespace crisp::netd {

/// Makes netd's objects, starts the roll back of what an earlier run left half done, and adds the
/// service.
Result<std::unique_ptr<daemon::App>> MakeApp(daemon::Daemon& daemon);

}  // namespace crisp::netd
