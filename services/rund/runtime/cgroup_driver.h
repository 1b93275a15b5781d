#pragma once

#include <string>
#include <vector>

#include "cri/v1/api.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "libs/os/cgroup.h"
#include "libs/systemd/units.h"
#include "services/rund/runtime/cgroup_limits.h"

namespace crisp::rund {

enum class CgroupDriverKind { kCgroupfs, kSystemd };

/// Where the cgroups of pods and containers are, and who makes, limits and removes them: we
/// ourselves (cgroupfs), or systemd as slices and scopes. The driver in force decides for new pods;
/// what exists says by its path what it is. No state of its own; any thread.
class CgroupDriver {
 public:
  /// `units`: null where systemd is not what started this machine.
  CgroupDriver(const os::Cgroups& cgroups, CgroupDriverKind kind, systemd::Units* units)
      : cgroups_(cgroups), kind_(kind), units_(units) {}

  CgroupDriverKind kind() const { return kind_; }
  /// Whether this machine has what the driver needs. kFailedPrecondition, kUnavailable: one
  /// sentence that names the setting.
  Status Check(const CallContext& cc) const;

  /// The cgroup of a pod, of the `linux.cgroup_parent` that it came with: a path (cgroupfs), a
  /// slice or the path of one (systemd), or nothing, for one of its own. kInvalidArgument names the
  /// field.
  Result<std::string> PodCgroup(const PodId& id, const std::string& cgroup_parent) const;
  /// Makes it and what is above it, or sees that it is there.
  Status MakePod(const CallContext& cc, const PodId& id, const std::string& cgroup) const;
  /// Of one that we made. Absent = Ok.
  Status RemovePod(const CallContext& cc, const std::string& cgroup) const;

  /// Where a container of that pod is going to be: its `linux.cgroupsPath`, and the cgroup.
  struct Place {
    std::string spec;
    std::string cgroup;
    bool by_systemd = false;  // as the runtime is told
  };
  static Place ContainerPlace(const std::string& pod_cgroup, const ContainerId& id);
  /// Where its first process is, which the runtime decides (crun makes one below the scope);
  /// `planned` when that process has ended.
  static std::string CgroupOfInit(const std::string& planned, pid_t init);
  /// SIGKILL to what is left in it, then it goes, with its scope. Absent = Ok.
  Status RemoveContainer(const CallContext& cc, const std::string& cgroup) const;
  /// The same by what a spec says; what is not of this container is left alone.
  Status RemoveBySpec(const CallContext& cc, const std::string& cgroups_path,
                      const ContainerId& id) const;

  /// Moves the pod's own process into a cgroup of its own in the pod's, which nobody else is in.
  Status AddPause(const CallContext& cc, const std::string& pod_cgroup, const PodId& id,
                  pid_t pid) const;
  /// Ends what is in it, and it. Absent = Ok.
  Status RemovePause(const CallContext& cc, const std::string& pod_cgroup, const PodId& id) const;

  /// The files that these limits mean, of the unit and of what the runtime has made below it.
  /// Errors as CgroupSettings.
  Result<std::vector<CgroupSetting>> Files(
      const std::string& cgroup, const runtime::v1::LinuxContainerResources& resources) const;
  /// Sees to it that these files of a unit are there: systemd enables a controller when a unit
  /// needs it, and what has had no limit until now may have needed none. Changes no limit; nothing
  /// where the cgroup is not systemd's.
  Status EnableControllers(const CallContext& cc, const std::string& cgroup,
                           const std::vector<CgroupSetting>& files) const;
  /// Tells systemd, so that a daemon-reload does not undo what was written to the files; nothing
  /// where the cgroup is not its.
  Status SetUnit(const CallContext& cc, const std::string& cgroup,
                 const runtime::v1::LinuxContainerResources& resources) const;
  /// Both: all or nothing (see ApplyCgroupSettings), and so that a daemon-reload does not undo it.
  /// `now`: what is in force, and is again when systemd refuses.
  Status Limit(const CallContext& cc, const std::string& cgroup,
               const runtime::v1::LinuxContainerResources& next,
               const runtime::v1::LinuxContainerResources& now) const;
  /// Puts back what a change has done that did not end: the old values of files, and `now` at the
  /// unit. What fails is logged.
  void TakeBack(const CallContext& cc, const std::string& cgroup,
                const std::vector<CgroupSetting>& undo,
                const runtime::v1::LinuxContainerResources& now) const;

 private:
  Result<systemd::Units*> SystemdUnits() const;
  Status RemoveUnit(const CallContext& cc, const std::string& cgroup) const;

  const os::Cgroups& cgroups_;
  CgroupDriverKind kind_;
  systemd::Units* units_;
};

}  // namespace crisp::rund
