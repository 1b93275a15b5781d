#pragma once

#include <string>

namespace crisp::rund {

/// "/dev/vda" for "254:0", as the kernel names it; empty for what is no block device.
std::string DeviceName(const std::string& number, const std::string& sys_root = "/sys");

}  // namespace crisp::rund
