#pragma once

#include <memory>

#include "libs/base/result.h"
#include "libs/daemon/daemon.h"

namespace crisp::netd {

/// Makes netd's objects, starts the roll back of what an earlier run left half done, and adds the
/// service.
Result<std::unique_ptr<daemon::App>> MakeApp(daemon::Daemon& daemon);

/// What netd would say of these settings: the program for its own host ports is there.
Status CheckSettings(const settings::Settings& settings, const daemon::Options& options);

}  // namespace crisp::netd
