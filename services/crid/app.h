#pragma once

#include <memory>

#include "libs/base/result.h"
#include "libs/daemon/daemon.h"

namespace crisp::crid {

/// Composition root of crid: the view, the peers, the flows, the two CRI services, the reconcile
/// timer and the metrics listener.
Result<std::unique_ptr<daemon::App>> MakeApp(daemon::Daemon& daemon);

}  // namespace crisp::crid
