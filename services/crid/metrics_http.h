#pragma once

#include "libs/daemon/daemon.h"
#include "libs/http/server.h"

namespace crisp::crid {

/// What the TCP listener answers: /metrics (crid's own) and /metrics/<service>/<instance>, which it
/// fetches from that daemon's unix socket, so that no other daemon listens on TCP.
http::Handler MetricsHandler(daemon::Daemon& daemon);

}  // namespace crisp::crid
