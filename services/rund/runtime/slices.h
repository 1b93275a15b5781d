#pragma once

#include <set>
#include <string>
#include <string_view>

#include "cri/v1/api.pb.h"
#include "libs/base/result.h"
#include "libs/systemd/units.h"

namespace crisp::rund {

/// "kubepods-burstable-podX.slice" → "/kubepods.slice/kubepods-burstable.slice/kubepods-…": where
/// systemd puts it. kInvalidArgument: no name of a slice.
Result<std::string> ExpandSlice(const std::string& slice);

/// The unit that a cgroup belongs to, by its path: "crisp-X.scope" of
/// "/kubepods.slice/…/crisp-X.scope/container"; the last slice when there is no scope. "" of a path
/// that is not systemd's.
std::string UnitOf(std::string_view cgroup);
/// The cgroup of that unit itself: without what is below it.
std::string UnitCgroup(std::string_view cgroup);

/// What these resources are called as properties of a slice or scope, in the values that the files
/// of its cgroup get (see CgroupSettings). What systemd does not know (huge pages, most of
/// `unified`) is left out. kInvalidArgument: a list of cores that is none.
Result<systemd::Properties> UnitProperties(const runtime::v1::LinuxContainerResources& resources);

/// Has systemd enable these controllers ("cpu") for a unit that needed none of them until now, and
/// sets no limit: `cpus` are all that there are, as the kernel lists them.
Result<systemd::Properties> ControllerProperties(const std::set<std::string>& controllers,
                                                 const std::string& cpus);

}  // namespace crisp::rund
