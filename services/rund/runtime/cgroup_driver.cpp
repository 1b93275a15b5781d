#include "services/rund/runtime/cgroup_driver.h"

#include <chrono>
#include <set>
#include <thread>
#include <utility>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "services/rund/runtime/slices.h"

namespace crisp::rund {
namespace {

std::string PauseCgroup(const std::string& pod_cgroup, const PodId& id) {
  return pod_cgroup + "/crisp-pause-" + id.str() + (UnitOf(pod_cgroup).empty() ? "" : ".scope");
}

constexpr std::chrono::seconds kControllerPatience{2};

/// "cpu" of ".../cpu.max".
std::set<std::string> ControllersOfAbsent(const std::vector<CgroupSetting>& files) {
  std::set<std::string> controllers;
  for (const CgroupSetting& file : files) {
    const std::string name = file.path.substr(file.path.rfind('/') + 1);
    if (!os::Exists(file.path)) controllers.insert(name.substr(0, name.find('.')));
  }
  return controllers;
}

Result<std::string> SliceOf(const std::string& parent) {
  const std::string path = CRISP_TRY(ExpandSlice(parent.substr(parent.rfind('/') + 1)));
  if (parent.find('/') == std::string::npos || parent == path) return path;
  return InvalidArgument("'{}' is not where systemd has that slice: it is {}", parent, path);
}

}  // namespace

Status CgroupDriver::Check(const CallContext& cc) const {
  if (kind_ == CgroupDriverKind::kCgroupfs) return Status::Ok();
  if (units_ == nullptr) {
    return FailedPrecondition(
        "rund.cgroup_driver: this machine was not started by systemd; use cgroupfs");
  }
  if (cgroups_.mode() != os::CgroupMode::kV2) {
    return FailedPrecondition(
        "rund.cgroup_driver: systemd is for machines with one cgroup v2 tree, and this one has v1 "
        "hierarchies; use cgroupfs");
  }
  const auto version = units_->Version(cc);
  if (!version.ok()) return version.status().While("rund.cgroup_driver: systemd");
  log::Info("systemd has the cgroups", {{"version", *version}});
  return Status::Ok();
}

Result<systemd::Units*> CgroupDriver::SystemdUnits() const {
  if (units_ != nullptr) return units_;
  return FailedPrecondition("there is no systemd to ask for a unit");
}

Result<std::string> CgroupDriver::PodCgroup(const PodId& id,
                                            const std::string& cgroup_parent) const {
  std::string parent = cgroup_parent;
  while (parent.size() > 1 && parent.ends_with('/')) parent.pop_back();
  const bool none = parent.empty() || parent == "/";
  if (kind_ == CgroupDriverKind::kSystemd) {
    if (none) return ExpandSlice("crisp-pod" + id.str() + ".slice");
    if (!parent.ends_with(".slice")) {
      return InvalidArgument(
          "linux.cgroup_parent: '{}' is not a systemd slice, and the cgroup driver is systemd",
          cgroup_parent);
    }
    auto path = SliceOf(parent);
    if (!path.ok()) return std::move(path).While("linux.cgroup_parent");
    return path;
  }
  if (none) return "/crisp-pod" + id.str();
  if (parent.ends_with(".slice")) {
    return InvalidArgument(
        "linux.cgroup_parent: '{}' is a systemd slice, and the cgroup driver is cgroupfs",
        cgroup_parent);
  }
  if (parent.front() != '/') {
    return InvalidArgument("linux.cgroup_parent: '{}' is not an absolute path", cgroup_parent);
  }
  return parent;
}

Status CgroupDriver::MakePod(const CallContext& cc, const PodId& id,
                             const std::string& cgroup) const {
  const std::string unit = UnitOf(cgroup);
  if (unit.empty()) return cgroups_.Create(cgroup);
  if (CRISP_TRY(cgroups_.Exists(cgroup))) return Status::Ok();
  systemd::Units* units = CRISP_TRY(SystemdUnits());
  const systemd::Properties properties = {{"Description", "pod " + id.str()},
                                          {"CPUAccounting", true},
                                          // The default. Accounting alone brings no cpu.max on v2.
                                          {"CPUWeight", std::uint64_t{100}},
                                          {"MemoryAccounting", true},
                                          {"TasksAccounting", true},
                                          {"IOAccounting", true}};
  Status made = units->StartTransient(cc, unit, properties);
  return made.code() == Code::kAlreadyExists ? Status::Ok() : made;
}

Status CgroupDriver::RemovePod(const CallContext& cc, const std::string& cgroup) const {
  if (UnitOf(cgroup).empty()) return cgroups_.Remove(cgroup);
  return RemoveUnit(cc, cgroup);
}

Status CgroupDriver::RemoveUnit(const CallContext& cc, const std::string& cgroup) const {
  systemd::Units* units = CRISP_TRY(SystemdUnits());
  CRISP_TRY(units->Stop(cc, UnitOf(cgroup)));
  // systemd removes it some time after the job has ended.
  return cgroups_.Remove(cgroup);
}

CgroupDriver::Place CgroupDriver::ContainerPlace(const std::string& pod_cgroup,
                                                 const ContainerId& id) {
  const std::string slice = UnitOf(pod_cgroup);
  const std::string name = "/crisp-" + id.str();
  if (slice.empty()) return {pod_cgroup + name, pod_cgroup + name};
  return {slice + ":crisp:" + id.str(), pod_cgroup + name + ".scope", true};
}

std::string CgroupDriver::CgroupOfInit(const std::string& planned, pid_t init) {
  const std::string unit = UnitOf(planned);
  if (unit.empty()) return planned;
  const auto found = os::CgroupOf(init, "");
  return found.ok() && UnitOf(*found) == unit ? *found : planned;
}

Status CgroupDriver::RemoveContainer(const CallContext& cc, const std::string& cgroup) const {
  const std::string unit_cgroup = UnitCgroup(cgroup);
  const std::string& top = unit_cgroup.empty() ? cgroup : unit_cgroup;
  CRISP_TRY(cgroups_.Kill(top));
  return unit_cgroup.empty() ? cgroups_.Remove(top) : RemoveUnit(cc, top);
}

Status CgroupDriver::RemoveBySpec(const CallContext& cc, const std::string& cgroups_path,
                                  const ContainerId& id) const {
  if (cgroups_path.ends_with("/crisp-" + id.str())) return RemoveContainer(cc, cgroups_path);
  const std::string ending = ":crisp:" + id.str();
  if (!cgroups_path.ends_with(ending)) return Status::Ok();
  const std::string slice = cgroups_path.substr(0, cgroups_path.size() - ending.size());
  return RemoveContainer(cc, ContainerPlace(CRISP_TRY(ExpandSlice(slice)), id).cgroup);
}

Status CgroupDriver::AddPause(const CallContext& cc, const std::string& pod_cgroup, const PodId& id,
                              pid_t pid) const {
  const std::string cgroup = PauseCgroup(pod_cgroup, id);
  const std::string unit = UnitOf(cgroup);
  if (unit.empty()) {
    CRISP_TRY(cgroups_.Create(cgroup));
    return cgroups_.Add(cgroup, pid);
  }
  systemd::Units* units = CRISP_TRY(SystemdUnits());
  return units->StartTransient(cc, unit,
                               {{"Description", "namespaces of pod " + id.str()},
                                {"Slice", UnitOf(pod_cgroup)},
                                {"DefaultDependencies", false},
                                {"CollectMode", std::string("inactive-or-failed")},
                                {"PIDs", std::vector<std::uint32_t>{static_cast<unsigned>(pid)}}});
}

Status CgroupDriver::RemovePause(const CallContext& cc, const std::string& pod_cgroup,
                                 const PodId& id) const {
  return RemoveContainer(cc, PauseCgroup(pod_cgroup, id));
}

Result<std::vector<CgroupSetting>> CgroupDriver::Files(
    const std::string& cgroup, const runtime::v1::LinuxContainerResources& resources) const {
  const std::string unit_cgroup = UnitCgroup(cgroup);
  if (unit_cgroup.empty()) return CgroupSettings(cgroups_, cgroup, resources);
  auto settings = CRISP_TRY(CgroupSettings(cgroups_, unit_cgroup, resources));
  if (unit_cgroup == cgroup) return settings;
  // What the runtime made below it may have some of them too.
  auto below = CRISP_TRY(CgroupSettings(cgroups_, cgroup, resources));
  for (CgroupSetting& setting : below) {
    if (os::Exists(setting.path)) settings.push_back(std::move(setting));
  }
  return settings;
}

Status CgroupDriver::EnableControllers(const CallContext& cc, const std::string& cgroup,
                                       const std::vector<CgroupSetting>& files) const {
  const std::string unit = UnitOf(UnitCgroup(cgroup));
  if (unit.empty()) return Status::Ok();
  const std::set<std::string> missing = ControllersOfAbsent(files);
  if (missing.empty()) return Status::Ok();
  systemd::Units* units = CRISP_TRY(SystemdUnits());
  std::string cpus;
  if (missing.contains("cpuset")) {
    const std::string root = CRISP_TRY(cgroups_.RootFor("cpuset"));
    cpus = CRISP_TRY(os::ReadFile(root + "/cpuset.cpus.effective", KiB(4)));
    while (!cpus.empty() && cpus.back() == '\n') cpus.pop_back();
  }
  const auto properties = CRISP_TRY(ControllerProperties(missing, cpus));
  if (properties.empty()) return Status::Ok();  // not systemd's: who writes says what is not there
  CRISP_TRY(units->Set(cc, unit, properties));
  // It does so soon after it has answered. What does not come is what the kernel does not have.
  const CallContext soon = cc.Within(kControllerPatience);
  while (soon.Check().ok() && !ControllersOfAbsent(files).empty()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return Status::Ok();
}

Status CgroupDriver::SetUnit(const CallContext& cc, const std::string& cgroup,
                             const runtime::v1::LinuxContainerResources& resources) const {
  const std::string unit = UnitOf(UnitCgroup(cgroup));
  if (unit.empty()) return Status::Ok();
  systemd::Units* units = CRISP_TRY(SystemdUnits());
  return units->Set(cc, unit, CRISP_TRY(UnitProperties(resources)));
}

Status CgroupDriver::Limit(const CallContext& cc, const std::string& cgroup,
                           const runtime::v1::LinuxContainerResources& next,
                           const runtime::v1::LinuxContainerResources& now) const {
  if (!UnitCgroup(cgroup).empty()) CRISP_TRY(SystemdUnits());
  const std::vector<CgroupSetting> files = CRISP_TRY(Files(cgroup, next));
  CRISP_TRY(EnableControllers(cc, cgroup, files));
  // The files first: the kernel's refusal names one, and what systemd does later changes nothing.
  const std::vector<CgroupSetting> undo = CRISP_TRY(ApplyCgroupSettings(files));
  Status set = SetUnit(cc, cgroup, next);
  if (!set.ok()) TakeBack(cc, cgroup, undo, now);
  return set;
}

void CgroupDriver::TakeBack(const CallContext& cc, const std::string& cgroup,
                            const std::vector<CgroupSetting>& undo,
                            const runtime::v1::LinuxContainerResources& now) const {
  const auto taken = ApplyCgroupSettings(undo);
  log::IfError("take back limits", taken.ok() ? Status::Ok() : taken.status());
  log::IfError("take back the limits of a unit", SetUnit(cc, cgroup, now));
}

}  // namespace crisp::rund
