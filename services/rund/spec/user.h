#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cri/v1/api.pb.h"
#include "libs/base/result.h"
#include "libs/os/beneath.h"

namespace crisp::rund {

/// Who the container's first process is.
struct ResolvedUser {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::vector<std::uint32_t> groups;  // the primary one first, then ascending; no duplicates
  std::string home = "/";
};

/// The user that the CRI asks for, else the image's ("uid", "uid:gid", "name", "name:group"),
/// looked up in the rootfs's own /etc/passwd and /etc/group (`rootfs` resolves in-root).
/// kInvalidArgument: run_as_group alone, a name that the image does not know, an id out of range,
/// an unknown supplemental groups policy.
Result<ResolvedUser> ResolveUser(const os::Beneath& rootfs,
                                 const runtime::v1::LinuxContainerSecurityContext& security,
                                 std::string_view image_user);

}  // namespace crisp::rund
