#include "services/rund/core/resources.h"

#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "services/rund/core/status.h"
#include "services/rund/spec/process.h"
#include "services/rund/spec/resources.h"

namespace crisp::rund {
namespace {

// The kernel's limits, in microseconds: more is an error when it is set.
constexpr std::int64_t kMaxCpuPeriod = 1'000'000;
constexpr std::int64_t kMaxCpuQuota = std::int64_t{1} << 40;

namespace cri = runtime::v1;

std::string OomPath(pid_t pid) { return fmt::format("/proc/{}/oom_score_adj", pid); }

/// Of those processes that have the old value: one that chose another keeps it. Who ends meanwhile
/// does not matter.
Status SetOomScores(const std::vector<pid_t>& pids, int from, int to) {
  for (const pid_t pid : pids) {
    const auto text = os::ReadFile(OomPath(pid), KiB(1));
    if (!text.ok()) continue;
    int now = 0;
    std::from_chars(text->data(), text->data() + text->size(), now);
    if (now != from) continue;
    Status written = os::WriteExisting(OomPath(pid), std::to_string(to));
    if (!written.ok() && written.code() != Code::kNotFound && written.error() != ESRCH) {
      return std::move(written).While("linux.oom_score_adj {}", to);
    }
  }
  return Status::Ok();
}

Status ChangeOomScores(const Parts& parts, const ContainerRecord& container,
                       const cri::LinuxContainerResources& now,
                       const cri::LinuxContainerResources& next) {
  std::vector<std::string> notes;
  const int from = OomScoreAdj(now.oom_score_adj(), parts.spec_defaults.host, notes);
  const int to = OomScoreAdj(next.oom_score_adj(), parts.spec_defaults.host, notes);
  if (from == to) return Status::Ok();
  return SetOomScores(CRISP_TRY(parts.cgroups.Pids(container.cgroup_path())), from, to);
}

using Unified = google::protobuf::Map<std::string, std::string>;

bool Has(const Unified& files, const std::string& name, const std::string& value) {
  const auto found = files.find(name);
  return found != files.end() && found->second == value;
}

/// All or nothing is not possible for the rest.
Status CheckUnified(const Unified& asked, const Unified& now) {
  for (const auto& [file, value] : asked) {
    if (!IsKeyedFile(file) || Has(now, file, value)) continue;
    return InvalidArgument("linux.unified: \"{}\" cannot be changed while the container exists",
                           file);
  }
  return Status::Ok();
}

/// What is as it was need not be written, nor, if that fails, be written back.
cri::LinuxContainerResources WithoutUnchanged(cri::LinuxContainerResources next,
                                              const cri::LinuxContainerResources& now) {
  for (const auto& [file, value] : now.unified()) {
    if (Has(next.unified(), file, value)) next.mutable_unified()->erase(file);
  }
  return next;
}

v1::UpdateRecord RecordOfUndo(const std::vector<CgroupSetting>& undo) {
  v1::UpdateRecord record;
  for (const CgroupSetting& old : undo) {
    v1::CgroupWrite& write = *record.add_undo();
    write.set_path(old.path);
    write.set_value(old.value);
  }
  return record;
}

std::vector<CgroupSetting> UndoIn(const v1::UpdateRecord& record) {
  std::vector<CgroupSetting> undo;
  for (const v1::CgroupWrite& old : record.undo()) undo.push_back({old.path(), old.value()});
  return undo;
}

}  // namespace

Status CheckOverhead(const cri::LinuxContainerResources& overhead) {
  const auto refused = [](std::string_view field) {
    return InvalidArgument("linux.overhead.{}: a pod's overhead has CPU time and memory only",
                           field);
  };
  if (overhead.oom_score_adj() != 0) return refused("oom_score_adj");
  if (!overhead.cpuset_cpus().empty()) return refused("cpuset_cpus");
  if (!overhead.cpuset_mems().empty()) return refused("cpuset_mems");
  if (overhead.memory_swap_limit_in_bytes() != 0) return refused("memory_swap_limit_in_bytes");
  for (const auto& hugepage : overhead.hugepage_limits()) {
    if (hugepage.limit() != 0) return refused("hugepage_limits");
  }
  // The kubelet sends for both what holds for the whole pod ("memory.oom.group"); that of the
  // resources counts.
  return Status::Ok();
}

cri::LinuxContainerResources ResourcesOf(const cri::LinuxPodSandboxConfig& pod) {
  cri::LinuxContainerResources sum = pod.resources();
  const cri::LinuxContainerResources& overhead = pod.overhead();
  // Quotas add up by their share of a period.
  const auto period_of = [](const cri::LinuxContainerResources& of) {
    return of.cpu_period() > 0 ? std::min(of.cpu_period(), kMaxCpuPeriod) : kDefaultCpuPeriod;
  };
  // No limit of the containers is no limit of the pod.
  const auto add = [](std::int64_t containers, std::int64_t more) {
    std::int64_t both = 0;
    if (containers <= 0 || more <= 0) return containers;
    return __builtin_add_overflow(containers, more, &both) ? containers : both;
  };
  const std::int64_t quota = std::min(overhead.cpu_quota(), kMaxCpuQuota);
  sum.set_cpu_shares(add(sum.cpu_shares(), overhead.cpu_shares()));
  sum.set_cpu_quota(add(sum.cpu_quota(), quota * period_of(sum) / period_of(overhead)));
  sum.set_memory_limit_in_bytes(add(sum.memory_limit_in_bytes(), overhead.memory_limit_in_bytes()));
  // Of single processes.
  sum.clear_oom_score_adj();
  // As much swap as the containers may have: theirs to limit.
  sum.clear_memory_swap_limit_in_bytes();
  return sum;
}

Status LimitPod(const CallContext& cc, const Parts& parts, const std::string& cgroup,
                const cri::LinuxPodSandboxConfig& pod) {
  const cri::LinuxContainerResources limits = ResourcesOf(pod);
  CRISP_TRY(BuildResources(limits, parts.spec_defaults.host));
  return parts.cgroup_driver.Limit(cc, cgroup, limits, {});
}

Status UndoUpdate(const CallContext& cc, const Parts& parts, const PodId& id) {
  const PodRef pod = parts.state.FindPod(id);
  if (!pod || !pod->has_update()) return Status::Ok();
  if (!pod->torn_down()) {
    parts.cgroup_driver.TakeBack(cc, pod->cgroup_parent(), UndoIn(pod->update()),
                                 ResourcesOf(pod->config().linux()));
  }
  const auto changed = parts.state.ChangePod(id, [](PodRecord& record) {
    record.clear_update();
    return Status::Ok();
  });
  return changed.ok() ? Status::Ok() : changed.status();
}

Status UndoUpdate(const CallContext& cc, const Parts& parts, const ContainerId& id) {
  const ContainerRef container = parts.state.FindContainer(id);
  if (!container || !container->has_update()) return Status::Ok();
  if (Runs(container.get())) {
    parts.cgroup_driver.TakeBack(cc, container->cgroup_path(), UndoIn(container->update()),
                                 ResourcesOf(*container));
    log::IfError(
        "take back an oom_score_adj",
        ChangeOomScores(parts, *container, container->update().next(), ResourcesOf(*container)));
  }
  const auto changed = parts.state.ChangeContainer(id, [](ContainerRecord& record) {
    record.clear_update();
    return Status::Ok();
  });
  return changed.ok() ? Status::Ok() : changed.status();
}

Status Resources::CheckMemory(const std::string& cgroup, std::int64_t limit_bytes) const {
  if (limit_bytes <= 0) return Status::Ok();
  const auto used = p_.cgroups.MemoryInUse(cgroup);
  if (!used.ok()) return used.code() == Code::kNotFound ? Status::Ok() : used.status();
  if (*used <= static_cast<std::uint64_t>(limit_bytes)) return Status::Ok();
  return FailedPrecondition(
      "memory_limit_in_bytes: {} is less than the {} bytes that are in use now", limit_bytes,
      *used);
}

Status Resources::Change(const CallContext& cc, const ContainerRecord& container,
                         const cri::LinuxContainerResources& next,
                         const std::vector<CgroupSetting>& settings) {
  const ContainerId id(container.id());
  const std::vector<CgroupSetting> undo = CRISP_TRY(UndoOf(settings));
  CRISP_TRY(p_.state.ChangeContainer(id, [&](ContainerRecord& record) {
    *record.mutable_update() = RecordOfUndo(undo);
    *record.mutable_update()->mutable_next() = next;
    return Status::Ok();
  }));
  Status done = [&]() -> Status {
    // The files first: the kernel's refusal names one, and what systemd does later changes nothing.
    CRISP_TRY(ApplyCgroupSettings(settings));
    CRISP_TRY(p_.cgroup_driver.SetUnit(cc, container.cgroup_path(), next));
    CRISP_TRY(ChangeOomScores(p_, container, ResourcesOf(container), next));
    const auto changed = p_.state.ChangeContainer(id, [&next](ContainerRecord& record) {
      *record.mutable_resources() = next;
      record.clear_update();
      return Status::Ok();
    });
    return changed.ok() ? Status::Ok() : changed.status();
  }();
  if (!done.ok()) log::IfError("take back an update", UndoUpdate(cc, p_, id));
  return done;
}

Status Resources::UpdateContainer(const CallContext& cc,
                                  const cri::UpdateContainerResourcesRequest& request) {
  const ContainerId id(request.container_id());
  if (request.has_windows()) return InvalidArgument("windows: this is a Linux node");
  if (!request.has_linux()) return InvalidArgument("linux is required");
  if (!request.annotations().empty()) {
    return InvalidArgument("annotations: none means anything for an update of resources");
  }
  // Also waits for a create or a start that is under way.
  auto held = CRISP_TRY(p_.locks.Lock(cc, LockKey(id)));
  CRISP_TRY(UndoUpdate(cc, p_, id));
  const ContainerRef container = p_.state.FindContainer(id);
  if (!container || !IsListed(*container)) return NotFound("no container {}", id);
  if (!Runs(container.get())) {
    return FailedPrecondition("container {} is neither created nor running", id);
  }
  if (container->restores()) {
    return FailedPrecondition("container {} is restored when it is started: not before", id);
  }
  const cri::LinuxContainerResources& now = ResourcesOf(*container);
  const cri::LinuxContainerResources next = MergeResources(now, request.linux());
  const HostFacts& host = p_.spec_defaults.host;
  CRISP_TRY(BuildResources(next, host));
  const std::string& cgroup = container->cgroup_path();
  if (next.memory_limit_in_bytes() != now.memory_limit_in_bytes()) {
    CRISP_TRY(CheckMemory(cgroup, next.memory_limit_in_bytes()));
  }
  CRISP_TRY(CheckUnified(request.linux().unified(), now.unified()));
  const auto settings = CRISP_TRY(p_.cgroup_driver.Files(cgroup, WithoutUnchanged(next, now)));
  CRISP_TRY(p_.cgroup_driver.EnableControllers(cc, cgroup, settings));
  CRISP_TRY(Change(cc, *container, next, settings).While("update container {}", id));
  log::Info("container resources changed", {{"container", id},
                                            {"memory_limit_bytes", next.memory_limit_in_bytes()},
                                            {"cpu_quota_us", next.cpu_quota()},
                                            {"cpu_shares", next.cpu_shares()}});
  return Status::Ok();
}

Status Resources::UpdatePod(const CallContext& cc,
                            const cri::UpdatePodSandboxResourcesRequest& request) {
  const PodId id(request.pod_sandbox_id());
  CRISP_TRY(CheckOverhead(request.overhead()));
  auto held = CRISP_TRY(p_.locks.Lock(cc, LockKey(id)));
  CRISP_TRY(UndoUpdate(cc, p_, id));
  const PodRef pod = p_.state.FindPod(id);
  if (!pod || !IsListed(*pod)) return NotFound("no pod sandbox {}", id);
  if (pod->phase() != v1::LIVE || pod->stopping()) {
    return FailedPrecondition("pod sandbox {} is not ready", id);
  }
  cri::LinuxPodSandboxConfig next = pod->config().linux();
  *next.mutable_resources() = MergeResources(next.resources(), request.resources());
  *next.mutable_overhead() = MergeResources(next.overhead(), request.overhead());
  const cri::LinuxContainerResources limits = ResourcesOf(next);
  CRISP_TRY(BuildResources(limits, p_.spec_defaults.host));
  if (pod->cgroup_is_ours()) {
    CRISP_TRY(CheckMemory(pod->cgroup_parent(), limits.memory_limit_in_bytes()));
  }
  return Change(cc, *pod, next).While("update pod {}", id);
}

Status Resources::Change(const CallContext& cc, const PodRecord& pod,
                         const cri::LinuxPodSandboxConfig& next) {
  const PodId id(pod.id());
  const std::string& cgroup = pod.cgroup_parent();
  const cri::LinuxContainerResources limits = ResourcesOf(next);
  if (pod.cgroup_is_ours()) {
    const auto files = CRISP_TRY(p_.cgroup_driver.Files(cgroup, limits));
    CRISP_TRY(p_.cgroup_driver.EnableControllers(cc, cgroup, files));
    const auto undo = CRISP_TRY(UndoOf(files));
    CRISP_TRY(p_.state.ChangePod(id, [&undo](PodRecord& record) {
      *record.mutable_update() = RecordOfUndo(undo);
      return Status::Ok();
    }));
    const cri::LinuxContainerResources now = ResourcesOf(pod.config().linux());
    if (Status set = p_.cgroup_driver.Limit(cc, cgroup, limits, now); !set.ok()) {
      log::IfError("take back an update", UndoUpdate(cc, p_, id));
      return set;
    }
  }
  const auto changed = p_.state.ChangePod(id, [&next](PodRecord& record) {
    *record.mutable_config()->mutable_linux() = next;
    record.clear_update();
    return Status::Ok();
  });
  if (changed.ok()) return Status::Ok();
  log::IfError("take back an update", UndoUpdate(cc, p_, id));
  return changed.status();
}

}  // namespace crisp::rund
