#pragma once

#include <map>
#include <string>

#include "libs/base/result.h"
#include "libs/os/namespaces.h"

namespace crisp::netd {

/// A new network namespace pinned at `path`, with the loopback up and the sysctls set. What an
/// interrupted attempt left there is taken away first. Unpinned unless it is committed.
/// kInvalidArgument / kNotFound: a sysctl that is none.
Result<os::NamespacePin> PinNetns(const std::string& path,
                                  const std::map<std::string, std::string>& sysctls);

}  // namespace crisp::netd
