#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/os/beneath.h"
#include "services/rund/spec/builder.h"
#include "services/rund/spec/image_config.h"

namespace crisp::rund {

struct BuiltMounts {
  nlohmann::json mounts = nlohmann::json::array();
  std::string rootfs_propagation;  // empty: the runtime's default
};

/// Our defaults (proc, dev, sys, cgroup, shm, resolv.conf ...) without those that a mount of the
/// CRI covers, the CRI's, and a directory for each VOLUME of the image that none of them covers; by
/// depth, the last of two with the same destination wins.
/// kInvalidArgument and kUnimplemented name the field ("mounts[2].host_path"); what the kubelet
/// must find at the start of the message ("RROUnsupported", "ImageVolumeMountFailed") has kUnknown,
/// since it would not look past any other code.
Result<BuiltMounts> BuildMounts(const SpecInputs& inputs, const ImageConfig& image,
                                const os::Beneath& rootfs, const SpecDefaults& defaults,
                                bool privileged);

/// How the mount that holds a path takes part in propagation, from a mountinfo file.
enum class Propagation { kPrivate, kSlave, kShared };
/// `path` is absolute and resolved.
Propagation PropagationOf(std::string_view mountinfo, std::string_view path);

}  // namespace crisp::rund
