#pragma once

#include <functional>
#include <map>
#include <string>

#include "libs/base/result.h"
#include "libs/os/namespaces.h"

namespace crisp::netd {

/// A new network namespace pinned at `path`, with the loopback up and the sysctls set; inside the
/// user namespace at `userns_path` unless that is empty. What an interrupted attempt left there is
/// taken away first. Unpinned unless it is committed. `meanwhile` runs on the calling thread beside
/// it. kInvalidArgument / kNotFound: a sysctl that is none.
Result<os::NamespacePin> PinNetns(const std::string& path, const std::string& userns_path,
                                  const std::map<std::string, std::string>& sysctls,
                                  const std::function<void()>& meanwhile = nullptr);

}  // namespace crisp::netd
