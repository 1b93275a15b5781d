#pragma once

#include <string>

#include "libs/base/result.h"
#include "libs/base/status.h"

namespace crisp::os {

/// `lo` up in the network namespace of the calling thread (one ioctl; the kernel gives it 127.0.0.1
/// and ::1).
Status SetLoopbackUp();

/// The interface through which the calling thread's network namespace sends to an IPv4 address.
/// kInvalidArgument: no address; kUnavailable: no route to it.
Result<std::string> InterfaceTowards(const std::string& ipv4);

}  // namespace crisp::os
