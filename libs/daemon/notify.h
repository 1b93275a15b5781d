#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "libs/base/status.h"

namespace crisp::daemon {

/// systemd's readiness protocol: one datagram ("READY=1", "STOPPING=1", "STATUS=...") to the socket
/// that NOTIFY_SOCKET names (a path, or @abstract). Ok without one.
Status Notify(std::string_view state);
/// The same to a given socket.
Status NotifyTo(const std::string& socket, std::string_view state);
/// How often systemd's watchdog wants to hear "WATCHDOG=1" from this process: half the time that
/// WATCHDOG_USEC says, so that one that is late is no end. Nothing: there is no watchdog for us.
std::optional<std::chrono::microseconds> WatchdogPeriod();

}  // namespace crisp::daemon
