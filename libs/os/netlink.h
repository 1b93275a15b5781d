#pragma once

#include "libs/base/status.h"

namespace crisp::os {

/// `lo` up in the network namespace of the calling thread (one ioctl; the kernel gives it 127.0.0.1
/// and ::1).
Status SetLoopbackUp();

}  // namespace crisp::os
