#pragma once

#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/os/namespaces.h"

namespace crisp::rund {

/// Makes and pins a user namespace with these ids at `path`, and with it, owned by it, the other
/// namespaces (not kUser). `helper` is the crisp-pause program: only a process with one thread gets
/// a user namespace. Until they are committed the pins undo themselves. kPermissionDenied,
/// kResourceExhausted: what the kernel says; kDeadlineExceeded.
Result<std::vector<os::NamespacePin>> PinUserNamespace(
    const CallContext& cc, const std::string& helper, const std::string& path,
    const os::IdRange& uids, const os::IdRange& gids, std::vector<os::NamespaceTarget> others);

/// Whether pods can have user namespaces here: makes one, and an overlay on an ID-mapped mount of
/// `store_dir` (the file system of the images), below `scratch_dir`, and takes both away. The error
/// says what is missing.
Status ProbeUserNamespaces(const CallContext& cc, const std::string& helper,
                           const std::string& store_dir, const std::string& scratch_dir);

}  // namespace crisp::rund
