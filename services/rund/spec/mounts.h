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
  std::vector<HostMount> host_mounts;
};

/// Which of the kernel's file systems a container may write to.
struct WritableMounts {
  bool sys = false;
  bool cgroups = false;
};

/// Our defaults (proc, dev, sys, cgroup, shm, resolv.conf ...) without those that a mount of the
/// CRI covers, the CRI's, and a directory for each VOLUME of the image that none of them covers; by
/// depth, the last of two with the same destination wins. `mount_label`: for what is labelled;
/// empty = nothing.
/// kInvalidArgument and kUnimplemented name the field ("mounts[2].host_path"); what the kubelet
/// must find at the start of the message ("RROUnsupported", "ImageVolumeMountFailed") has kUnknown,
/// since it would not look past any other code.
Result<BuiltMounts> BuildMounts(const CallContext& cc, const SpecInputs& inputs,
                                const ImageConfig& image, const os::Beneath& rootfs,
                                const SpecDefaults& defaults, const WritableMounts& writable,
                                const std::string& mount_label);

}  // namespace crisp::rund
