#pragma once

#include <vector>

#include "libs/base/result.h"
#include "libs/rpc/listener.h"

namespace crisp::daemon {

/// The listening sockets that systemd (or who else starts us) hands over: descriptors 3 and up, as
/// many as LISTEN_FDS says, where LISTEN_PID means this process. None without them. The variables
/// are gone afterwards: children get neither them nor the sockets. Once, on the main thread, before
/// there are others. kInvalidArgument: the variables make no sense, or a descriptor is no unix
/// socket that listens.
Result<std::vector<rpc::Listener>> TakeListeners();

}  // namespace crisp::daemon
