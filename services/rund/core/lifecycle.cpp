#include "services/rund/core/lifecycle.h"

#include <poll.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <utility>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/pidfd.h"
#include "services/rund/core/status.h"
#include "services/rund/runtime/conmon.h"
#include "services/rund/runtime/rootfs.h"
#include "services/rund/runtime/volume_mounts.h"

namespace crisp::rund {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr int kLostCode = 255;
constexpr seconds kCleanTimeout{60};
// From SIGKILL to the exit file: processes in the middle of a system call, a slow disk under the
// log.
constexpr seconds kKillPatience{10};
constexpr seconds kMonitorPatience{5};

std::string ReasonFor(const ExitRecord& exit) {
  if (exit.oom && exit.code == 128 + SIGKILL) return "OOMKilled";
  return exit.code == 0 ? "Completed" : "Error";
}

// Waits for the end of a process that is not our child.
void AwaitEnd(const os::ProcessId& process, nanoseconds patience) {
  const auto pidfd = os::PidFd::Open(process);
  if (!pidfd.ok()) return;
  pollfd poller{.fd = pidfd->fd(), .events = POLLIN};
  poll(&poller, 1,
       static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(patience).count()));
}

}  // namespace

void Lifecycle::OnExitFile(const ContainerId& id) {
  const ContainerRef container = p_.state.FindContainer(id);
  // A start under way, or a create, looks for itself when it is done.
  if (!Runs(container.get()) || container->starting_at() != 0) return;
  auto exit = ReadExit(p_.config.layout, id);
  if (!exit.ok()) {
    log::Error("exit code cannot be read", {{"container", id}, {"error", exit.status()}});
    return MarkLost(id, "Error", exit.status().message());
  }
  if (exit->has_value()) SetExited(id, **exit, ReasonFor(**exit), "");
}

void Lifecycle::OnMonitorGone(const ContainerId& id) {
  OnExitFile(id);
  const ContainerRef container = p_.state.FindContainer(id);
  if (!Runs(container.get()) || container->starting_at() != 0) return;
  // Nobody reads what it writes, and nobody would learn how it ends.
  log::Error("container monitor ended without an exit code; killing the container",
             {{"container", id}, {"monitor", container->monitor().pid()}});
  p_.metrics.MonitorLost();
  Kill(*container);
  AwaitEnd(ProcessOf(container->init()), kMonitorPatience);
  MarkLost(id, "Error",
           "ContainerMonitorDied: the monitor process of the container ended, and the container "
           "was killed");
}

void Lifecycle::CheckExit(const ContainerId& id) {
  const ContainerRef container = p_.state.FindContainer(id);
  if (!Runs(container.get())) return;
  // The order matters: a monitor that ends writes the file first.
  const bool monitored = os::Alive(ProcessOf(container->monitor()));
  if (os::Exists(p_.config.layout.ExitPath(id))) return OnExitFile(id);
  if (!monitored) OnMonitorGone(id);
}

void Lifecycle::MarkLost(const ContainerId& id, const std::string& reason,
                         const std::string& message) {
  ExitRecord exit;
  exit.code = kLostCode;
  exit.finished_at = p_.state.NextTimestamp();
  SetExited(id, exit, reason, message);
}

void Lifecycle::SetExited(const ContainerId& id, const ExitRecord& exit, const std::string& reason,
                          const std::string& message) {
  const auto changed = p_.state.ChangeContainer(id, [&](ContainerRecord& record) {
    if (!Runs(&record) || record.starting_at() != 0) return Aborted("not now");
    record.set_state(runtime::v1::CONTAINER_EXITED);
    record.set_exit_code(exit.code);
    record.set_reason(reason);
    record.set_message(message);
    // File times come from a coarser clock, and one that can be set back.
    record.set_finished_at(std::max({exit.finished_at, record.started_at(), record.created_at()}));
    return Status::Ok();
  });
  if (!changed.ok()) {
    if (changed.code() != Code::kAborted && changed.code() != Code::kNotFound) {
      log::Error("container's end could not be stored",
                 {{"container", id}, {"error", changed.status()}});
    }
    return;
  }
  p_.metrics.ContainerExited(reason == "OOMKilled");
  log::Info("container exited", {{"container", id}, {"code", exit.code}, {"reason", reason}});
  p_.supervisor->Forget(id);
  CleanLater(id);
}

void Lifecycle::Kill(const ContainerRecord& container) {
  if (const auto init = os::PidFd::Open(ProcessOf(container.init())); init.ok()) {
    log::IfError("kill container", init->Signal(SIGKILL));
  }
  // With a PID namespace of its own the kernel kills the rest along with its first process.
  if (!container.own_pid_namespace() && !container.cgroup_path().empty()) {
    log::IfError("kill the container's cgroup", p_.cgroups.Kill(container.cgroup_path()));
  }
}

Status Lifecycle::WaitExited(const CallContext& cc, const ContainerId& id) {
  const auto ended = [](const ContainerRecord* record) { return !Runs(record); };
  Status waited = p_.state.WaitContainer(
      id, p_.clock.Now() + std::min<nanoseconds>(kKillPatience, cc.Remaining()), ended);
  if (waited.ok()) return waited;
  const ContainerRef container = p_.state.FindContainer(id);
  if (!Runs(container.get())) return Status::Ok();
  if (os::Alive(ProcessOf(container->init()))) {
    return DeadlineExceeded("container {} is still there after SIGKILL", id);
  }
  // Its process has ended, and its monitor does not say so: the monitor hangs.
  KillMonitors(p_.config.layout.Bundle(id));
  return p_.state.WaitContainer(id, p_.clock.Now() + kMonitorPatience, ended);
}

Status Lifecycle::KillAndWait(const CallContext& cc, const ContainerId& id) {
  const ContainerRef container = p_.state.FindContainer(id);
  if (!Runs(container.get())) return Status::Ok();
  Kill(*container);
  return WaitExited(cc, id);
}

Status Lifecycle::Stop(const CallContext& cc, const ContainerId& id, seconds grace) {
  ContainerRef container = p_.state.FindContainer(id);
  if (!Runs(container.get())) return Status::Ok();
  const std::int64_t now = p_.clock.Wall().time_since_epoch().count();
  // Bounded, so that no sum overflows; nobody waits longer than ten years.
  grace = std::clamp(grace, seconds(0), seconds(315'360'000));
  const std::int64_t kill_at = now + nanoseconds(grace).count();
  bool signal = false;
  const auto changed = p_.state.ChangeContainer(id, [&](ContainerRecord& record) {
    if (!Runs(&record)) return Aborted("ended meanwhile");
    const bool first = record.stop_asked_at() == 0;
    if (!first && record.stop_kill_at() <= kill_at) return Aborted("nothing new");
    // What has not been started does not react to signals.
    signal = first && grace.count() > 0 && record.state() == runtime::v1::CONTAINER_RUNNING;
    if (first) record.set_stop_asked_at(now);
    record.set_stop_kill_at(record.state() == runtime::v1::CONTAINER_RUNNING ? kill_at : now);
    return Status::Ok();
  });
  if (!changed.ok()) {
    if (changed.code() == Code::kNotFound) return Status::Ok();
    if (changed.code() != Code::kAborted) return changed.status();
  }
  if (signal) {
    container = p_.state.FindContainer(id);
    if (!container) return Status::Ok();
    const int number = container->stop_signal() == 0 ? SIGTERM : container->stop_signal();
    const auto init = os::PidFd::Open(ProcessOf(container->init()));
    if (init.ok()) log::IfError("send the stop signal", init->Signal(number));
  }
  return WaitGrace(cc, id);
}

void Lifecycle::ResumeStop(const CallContext& cc, const ContainerId& id) {
  log::IfError("go on with the stop of a container", WaitGrace(cc, id));
}

Status Lifecycle::WaitGrace(const CallContext& cc, const ContainerId& id) {
  for (;;) {
    const ContainerRef container = p_.state.FindContainer(id);
    if (!Runs(container.get())) return Status::Ok();
    const std::int64_t kill_at = container->stop_kill_at();
    const nanoseconds left(kill_at - p_.clock.Wall().time_since_epoch().count());
    // The caller may have left or run out of time: the stop that it asked for goes on.
    if (left.count() <= 0) return KillAndWait(cc.Detached(kKillPatience + kMonitorPatience), id);
    // A timeout is the end of the grace: the loop looks at the clock again.
    p_.state
        .WaitContainer(id, p_.clock.Now() + left,
                       [kill_at](const ContainerRecord* record) {
                         return !Runs(record) || record->stop_kill_at() < kill_at;
                       })
        .ok();
  }
}

Status Lifecycle::TakeDown(const CallContext& cc, const ContainerRecord& container) {
  const ContainerId id(container.id());
  const Layout& layout = p_.config.layout;
  if (!container.own_pid_namespace() && !container.cgroup_path().empty()) {
    CRISP_TRY(p_.cgroups.Kill(container.cgroup_path()));
  }
  if (const OciRuntime* runtime = p_.runtimes.Recorded(container.runtime())) {
    CRISP_TRY(runtime->Delete(cc, id));
  }
  if (!container.cgroup_path().empty()) {
    CRISP_TRY(p_.cgroups.Kill(container.cgroup_path()));
    CRISP_TRY(p_.cgroups.Remove(container.cgroup_path()));
  }
  CRISP_TRY(UnmountVolumes(layout.MountsOf(id)));
  return UnmountRootfs(layout.Rootfs(id));
}

Status Lifecycle::Clean(const CallContext& cc, const ContainerId& id) {
  const ContainerRef container = p_.state.FindContainer(id);
  if (!container || container->cleaned() || Runs(container.get())) return Status::Ok();
  Status done = TakeDown(cc.Detached(kCleanTimeout), *container);
  if (!done.ok()) {
    p_.metrics.CleanupFailed();
    return std::move(done).While("take down container {}", id);
  }
  const auto changed = p_.state.ChangeContainer(id, [](ContainerRecord& record) {
    record.set_cleaned(true);
    return Status::Ok();
  });
  return changed.ok() || changed.code() == Code::kNotFound ? Status::Ok() : changed.status();
}

Status Lifecycle::UndoCreate(const CallContext& cc, const ContainerId& id) {
  const ContainerRef container = p_.state.FindContainer(id);
  if (!container || !container->creating()) return Status::Ok();
  const Layout& layout = p_.config.layout;
  KillMonitors(layout.Bundle(id));
  Status done = [&]() -> Status {
    CRISP_TRY(TakeDown(cc.Detached(kCleanTimeout), *container));
    CRISP_TRY(os::RemoveTree(layout.Bundle(id)));
    CRISP_TRY(os::RemoveFile(layout.ExitPath(id)));
    return os::RemoveTree(layout.VolumesOf(id));
  }();
  if (!done.ok()) {
    p_.metrics.CleanupFailed();
    return std::move(done).While("undo the create of container {}", id);
  }
  const auto changed = p_.state.ChangeContainer(id, [](ContainerRecord& record) {
    record.set_creating(false);
    return Status::Ok();
  });
  return changed.ok() ? Status::Ok() : changed.status();
}

void Lifecycle::CleanLater(const ContainerId& id) {
  const CallContext cc = CallContext::Background(std::chrono::hours(1), "clean");
  log::IfError("clean a container later", p_.pool.Submit(work::Lane::kBulk, cc, [this, cc, id] {
    auto held = p_.locks.Lock(cc, LockKey(id));
    if (held.ok()) log::IfError("clean container", Clean(cc, id));
  }));
}

}  // namespace crisp::rund
