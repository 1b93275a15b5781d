#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "libs/base/result.h"

namespace crisp::os {

/// Where a UDP flow is addressed to before anybody translates it.
struct UdpEnd {
  std::uint16_t port = 0;
  std::string address;  // empty: any
};

/// Has the kernel forget the UDP flows to these ends, in the calling thread's network namespace:
/// their next packet goes by the rules of then, not by those of their first. How many those were.
/// Goes through the whole table of connections. kUnimplemented or another errno's: this kernel
/// keeps no such table.
Result<std::size_t> ForgetUdpFlows(const std::vector<UdpEnd>& ends);

}  // namespace crisp::os
