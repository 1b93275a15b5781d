#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "services/netd/core/conf_list.h"

namespace crisp::netd {

/// Where the network's addresses lie if host-local, CNI's own IPAM plugin, hands them out: a file
/// each, named by the address.
std::vector<std::string> HostLocalDirs(const ConfList& list);

/// host-local makes an address's file and then writes whose it is: killed in between, or after a
/// power cut, the file is empty, and no DEL gives the address back. Takes those away, with
/// host-local's own lock held, so that none of them is being made. How many there were.
/// kUnavailable: host-local was at work all the time.
Result<std::size_t> FreeNobodys(const CallContext& cc, const ConfList& list);

}  // namespace crisp::netd
