#include "services/rund/core/lifecycle.h"

#include <poll.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <utility>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"
#include "libs/os/pidfd.h"
#include "libs/work/operations.h"
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
// A clean-up that has failed waits for the next sweep; then twice as long with each failure.
constexpr seconds kRetryPeriod{30};
constexpr int kMaxDoublings = 5;
// File times come from a coarser clock, which may be behind by a tick of the kernel.
constexpr nanoseconds kFileClockGrain = std::chrono::milliseconds(10);
// For a runtime's `start` that nobody waits for any more.
constexpr seconds kStartPatience{30};
constexpr seconds kLoggerPatience{30};

// Waits for the end of a process that is not our child.
void AwaitEnd(const os::ProcessId& process, nanoseconds patience) {
  const auto pidfd = os::PidFd::Open(process);
  if (!pidfd.ok()) return;
  pollfd poller{.fd = pidfd->fd(), .events = POLLIN};
  poll(&poller, 1,
       static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(patience).count()));
}

}  // namespace

Lifecycle::Lifecycle(Parts& parts)
    : p_(parts),
      logs_(parts),
      oom_kills_(parts.state, parts.cgroups),
      stops_(parts.state, parts.clock,
             {.kill = [this](const ContainerId& id) { return BeginKill(id); },
              .kill_monitor =
                  [this](const ContainerId& id) {
                    const ContainerRef container = p_.state.FindContainer(id);
                    if (!container) return true;
                    return Later(id, [container] { KillMonitor(ProcessOf(container->monitor())); });
                  }}) {}

bool Lifecycle::BeginKill(const ContainerId& id) {
  const ContainerRef container = p_.state.FindContainer(id);
  if (!Runs(container.get())) return true;
  SignalInit(*container);
  ResolveStartLater(*container);
  return Later(id, [this, id] {
    const ContainerRef now = p_.state.FindContainer(id);
    if (!Runs(now.get())) return;
    if (now->restores()) return EndUnrestored(id);
    KillRest(*now);
  });
}

void Lifecycle::EndUnrestored(const ContainerId& id) {
  ExitRecord exit;
  exit.code = 128 + SIGKILL;
  exit.finished_at = p_.state.NextTimestamp();
  // While its start is under way that sees to its end itself.
  SetExited(id, exit, "Error", "");
}

bool Lifecycle::Later(const ContainerId& id, std::function<void()> task) {
  const CallContext cc = CallContext::Background(std::chrono::hours(1), "stop");
  // Not among those that wait for runtimes or for what commands do.
  const Status submitted = p_.pool.Submit(work::Lane::kStop, cc, std::move(task));
  if (!submitted.ok()) log::Warn("not now", {{"container", id}, {"error", submitted}});
  return submitted.ok();
}

std::string Lifecycle::ReasonFor(const ContainerRecord& container, const ExitRecord& exit,
                                 bool oom) {
  const bool killed_by_us =
      killed_.lock()->contains(container.id()) ||
      (container.stop_asked_at() != 0 &&
       exit.finished_at + kFileClockGrain.count() >= container.stop_kill_at());
  if (oom && !killed_by_us) return "OOMKilled";
  // A filter's verdict is SIGSYS, which nothing else sends.
  if (exit.code == 128 + SIGSYS) return "seccomp killed";
  return exit.code == 0 ? "Completed" : "Error";
}

void Lifecycle::OnExitFile(const ContainerId& id) {
  const ContainerRef container = p_.state.FindContainer(id);
  // A start under way, or a create, looks for itself when it is done.
  if (!Runs(container.get()) || container->starting_at() != 0) return;
  auto exit = ReadExit(p_.config.layout, id);
  if (!exit.ok()) {
    log::Error("exit code cannot be read", {{"container", id}, {"error", exit.status()}});
    // Whatever else it is may pass; then the sweep reads it.
    if (exit.code() == Code::kDataLoss) MarkLost(id, "Error", exit.status().message());
    return;
  }
  if (!exit->has_value()) return;
  logs_.Finish(*container);
  const auto turn = oom_kills_.Turn();
  // While the cgroup is still there: what is known of an OOM kill goes with it.
  const OomKills::Verdict verdict = oom_kills_.Of(*container, **exit);
  const std::string reason = ReasonFor(*container, **exit, verdict.oom);
  if (SetExited(id, **exit, reason, "")) oom_kills_.Account(*container, verdict);
}

void Lifecycle::OnMonitorGone(const ContainerId& id) {
  OnExitFile(id);
  const ContainerRef container = p_.state.FindContainer(id);
  if (!Runs(container.get()) || container->starting_at() != 0) return;
  if (container->restores()) return;  // has none yet
  // It could not be stored: the sweep tries again.
  if (os::Exists(p_.config.layout.ExitPath(id))) return;
  // Nobody reads what it writes, and nobody would learn how it ends.
  log::Error("container monitor ended without an exit code; killing the container",
             {{"container", id}, {"monitor", container->monitor().pid()}});
  p_.metrics.MonitorLost();
  // Not here: the next exit must not wait for this one.
  if (!Later(id, [this, id] { KillLost(id); })) KillLost(id);
}

void Lifecycle::OnLoggerGone(const ContainerId& id) {
  const CallContext cc = CallContext::Background(kLoggerPatience, "log");
  // At once: until then what the container writes has little room. Should this fail the sweep
  // looks.
  log::IfError("look after a log", p_.pool.Submit(work::Lane::kStream, cc, [this, cc, id] {
    const ContainerRef container = p_.state.FindContainer(id);
    if (Runs(container.get())) logs_.Check(cc, *container);
  }));
}

void Lifecycle::KillLost(const ContainerId& id) {
  const ContainerRef container = p_.state.FindContainer(id);
  if (!Runs(container.get())) return;
  KillInit(*container);
  if (os::Exists(p_.config.layout.ExitPath(id))) return OnExitFile(id);
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

void Lifecycle::CheckAll(const CallContext& cc) {
  for (const ContainerRef& container : p_.state.Containers()) {
    const ContainerId id(container->id());
    if (container->phase() == v1::LIVE && !Runs(container.get()) && !container->cleaned()) {
      CleanAgain(id);
    }
    if (!Runs(container.get())) continue;
    ResolveStartLater(*container);
    if (container->restores()) continue;
    if (os::Alive(ProcessOf(container->monitor()))) {
      logs_.Check(cc, *container);
    } else {
      CheckExit(id);
    }
  }
}

Status Lifecycle::ResolveStart(const CallContext& cc, const ContainerId& id) {
  const ContainerRef container = p_.state.FindContainer(id);
  if (!container || container->starting_at() == 0) return Status::Ok();
  const OciRuntime* runtime = p_.runtimes.Recorded(container->runtime());
  const CallContext soon = cc.Within(kStartPatience);
  if (container->restores()) return ResolveRestore(soon, *container, runtime);
  log::IfError("interrupted start", AwaitStarts(soon, id));
  bool started = false;
  if (runtime != nullptr) {
    const auto awaits = runtime->AwaitsStart(soon, id);
    // One that gives no answer now gives the next asker one; who wants the container's end, or
    // finds it ended, need not know.
    const bool matters = container->stop_asked_at() == 0 && os::Alive(ProcessOf(container->init()));
    if (!awaits.ok() && awaits.code() != Code::kNotFound && matters) return awaits.status();
    log::IfError("ask the runtime for an interrupted start", awaits.status());
    started = awaits.ok() && !*awaits;
  }
  CRISP_TRY(p_.state.ChangeContainer(id, [&](ContainerRecord& record) {
    if (started) {
      record.set_state(runtime::v1::CONTAINER_RUNNING);
      record.set_started_at(record.starting_at());
      record.set_start_unanswered(true);
    }
    record.set_starting_at(0);
    return Status::Ok();
  }));
  p_.supervisor->WatchMonitor(id, ProcessOf(container->monitor()));
  CheckExit(id);
  if (container->stop_asked_at() != 0) ResumeStop(id);
  return Status::Ok();
}

Status Lifecycle::ResolveRestore(const CallContext& cc, const ContainerRecord& container,
                                 const OciRuntime* runtime) {
  const ContainerId id(container.id());
  const std::string bundle = p_.config.layout.Bundle(id);
  const auto restored = FindRestored(cc, bundle);
  log::IfError("interrupted restore", restored.status());
  const bool runs = restored.ok() && restored->has_value();
  if (!runs) {
    // From its beginning again, when it is asked for again.
    KillMonitors(bundle);
    if (runtime != nullptr) CRISP_TRY(runtime->Delete(cc.Detached(CleanTimeout()), id));
  }
  CRISP_TRY(p_.state.ChangeContainer(id, [&](ContainerRecord& record) {
    if (runs) {
      Restored(**restored, record);
      record.set_started_at(record.starting_at());
      record.set_start_unanswered(true);
    }
    record.set_starting_at(0);
    return Status::Ok();
  }));
  if (runs) {
    p_.supervisor->WatchMonitor(id, (*restored)->monitor);
    CheckExit(id);
  }
  if (container.stop_asked_at() != 0) ResumeStop(id);
  return Status::Ok();
}

void Lifecycle::Restored(const Monitored& monitored, ContainerRecord& record) {
  record.set_restores(false);
  record.set_state(runtime::v1::CONTAINER_RUNNING);
  *record.mutable_init() = RecordOf(monitored.init);
  *record.mutable_monitor() = RecordOf(monitored.monitor);
  record.set_cgroup_path(CgroupDriver::CgroupOfInit(record.cgroup_path(), monitored.init.pid));
}

void Lifecycle::ResolveStartLater(const ContainerRecord& container) {
  if (container.starting_at() == 0) return;
  const CallContext cc = CallContext::Background(kStartPatience, "start");
  // Waits for a runtime, as the start itself did.
  log::IfError(
      "resolve a start later",
      p_.pool.Submit(work::Lane::kCreate, cc, [this, cc, id = ContainerId(container.id())] {
        // Whoever holds it is the start itself, or resolves it.
        const auto held = p_.locks.TryLock(LockKey(id));
        if (held.ok()) log::IfError("resolve a start", ResolveStart(cc, id));
      }));
}

void Lifecycle::MarkLost(const ContainerId& id, const std::string& reason,
                         const std::string& message) {
  ExitRecord exit;
  exit.code = kLostCode;
  exit.finished_at = p_.state.NextTimestamp();
  SetExited(id, exit, reason, message);
}

bool Lifecycle::SetExited(const ContainerId& id, const ExitRecord& exit, const std::string& reason,
                          const std::string& message) {
  const auto changed = p_.state.ChangeContainer(id, [&](ContainerRecord& record) {
    if (!Runs(&record) || record.starting_at() != 0) return Aborted("not now");
    record.set_state(runtime::v1::CONTAINER_EXITED);
    record.set_exit_code(exit.code);
    record.set_reason(reason);
    record.set_message(ToUtf8(message, kMaxMessageBytes));
    // File times come from a coarser clock.
    record.set_finished_at(p_.state.TimestampAfter(
        std::max(record.started_at(), record.created_at()), exit.finished_at));
    return Status::Ok();
  });
  if (!changed.ok()) {
    if (changed.code() != Code::kAborted && changed.code() != Code::kNotFound) {
      log::Error("container's end could not be stored",
                 {{"container", id}, {"error", changed.status()}});
    }
    return false;
  }
  p_.metrics.ContainerExited(reason == "OOMKilled");
  log::Info("container exited", {{"container", id}, {"code", exit.code}, {"reason", reason}});
  killed_.lock()->erase(id.str());
  logs_.Forget(id);
  p_.supervisor->Forget(id);
  CleanLater(id);
  return true;
}

void Lifecycle::Kill(const ContainerRecord& container) {
  SignalInit(container);
  KillRest(container);
}

void Lifecycle::KillInit(const ContainerRecord& container) {
  Kill(container);
  AwaitEnd(ProcessOf(container.init()), Stops::kMonitorPatience);
}

void Lifecycle::SignalInit(const ContainerRecord& container) {
  if (os::Alive(ProcessOf(container.init()))) {
    killed_.lock()->insert(container.id());
  }
  if (const auto init = os::PidFd::Open(ProcessOf(container.init())); init.ok()) {
    log::IfError("kill container", init->Signal(SIGKILL));
  }
}

void Lifecycle::KillRest(const ContainerRecord& container) {
  if (container.cgroup_path().empty()) return;
  // With a PID namespace of its own the kernel kills the rest along with its first process, once
  // that may run.
  if (container.own_pid_namespace()) {
    log::IfError("thaw the container's cgroup", p_.cgroups.Thaw(container.cgroup_path()));
  } else {
    log::IfError("kill the container's cgroup", p_.cgroups.Kill(container.cgroup_path()));
  }
}

Status Lifecycle::BeginStop(const ContainerId& id, seconds grace) {
  const std::int64_t now = p_.clock.Wall().time_since_epoch().count();
  // Bounded, so that no sum overflows; nobody waits longer than ten years.
  grace = std::clamp(grace, seconds(0), seconds(315'360'000));
  const SteadyTime steady_now = p_.clock.Now();
  const SteadyTime kill_at = steady_now + grace;
  bool signal = false;
  const auto changed = p_.state.ChangeContainer(id, [&](ContainerRecord& record) {
    if (!Runs(&record)) return Aborted("ended meanwhile");
    const bool first = record.stop_asked_at() == 0;
    if (!first && Stops::KillTimeOf(record, p_.clock) <= kill_at) return Aborted("nothing new");
    // What has not been started does not react to signals.
    signal = first && grace.count() > 0 && record.state() == runtime::v1::CONTAINER_RUNNING;
    if (first) record.set_stop_asked_at(now);
    const nanoseconds until =
        record.state() == runtime::v1::CONTAINER_RUNNING ? nanoseconds(grace) : nanoseconds(0);
    record.set_stop_kill_at(now + until.count());
    record.set_stop_kill_at_steady((steady_now + until).time_since_epoch().count());
    return Status::Ok();
  });
  if (!changed.ok()) {
    const bool nothing_to_do =
        changed.code() == Code::kNotFound || changed.code() == Code::kAborted;
    return nothing_to_do ? Status::Ok() : changed.status();
  }
  if (!signal) return Status::Ok();
  const ContainerRef container = p_.state.FindContainer(id);
  if (!container) return Status::Ok();
  const int number = container->stop_signal() == 0 ? SIGTERM : container->stop_signal();
  const auto init = os::PidFd::Open(ProcessOf(container->init()));
  if (init.ok()) log::IfError("send the stop signal", init->Signal(number));
  return Status::Ok();
}

void Lifecycle::Stop(const ContainerId& id, seconds grace, Stops::Done done) {
  if (!Runs(p_.state.FindContainer(id).get())) return done(Status::Ok());
  if (Status begun = BeginStop(id, grace); !begun.ok()) return done(begun);
  stops_.Await(id, std::move(done));
}

Status Lifecycle::End(const CallContext& cc, const std::vector<ContainerId>& ids) {
  std::vector<ContainerId> ending;
  Status first;
  for (const ContainerId& id : ids) {
    if (!Runs(p_.state.FindContainer(id).get())) continue;
    Status begun = BeginStop(id, seconds(0));
    if (begun.ok()) {
      ending.push_back(id);
    } else if (first.ok()) {
      first = std::move(begun);
    }
  }
  Status ended = stops_.AwaitAll(cc, ending);
  return first.ok() ? ended : first;
}

Result<work::LockTable::Held> Lifecycle::LockEnded(const CallContext& cc, const ContainerId& id) {
  while (true) {
    CRISP_TRY(End(cc, {id}));
    work::LockTable::Held held = CRISP_TRY(p_.locks.Lock(cc, LockKey(id)));
    CRISP_TRY(ResolveStart(cc, id));
    if (!Runs(p_.state.FindContainer(id).get())) return held;
  }
}

seconds Lifecycle::CleanTimeout() const {
  return std::min(kCleanTimeout, p_.config.runtime_timeout);
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
    CRISP_TRY(p_.cgroup_driver.RemoveContainer(cc, container.cgroup_path()));
  }
  const work::Stage stage(cc, "unmount what the container had");
  // Of a create that was cut short.
  if (os::Exists(layout.LowersDir(id))) CRISP_TRY(os::UnmountBelow(layout.LowersDir(id)));
  CRISP_TRY(UnmountVolumes(layout.MountsOf(id)));
  return UnmountRootfs(layout.Rootfs(id));
}

Status Lifecycle::Clean(const CallContext& cc, const ContainerId& id) {
  const ContainerRef container = p_.state.FindContainer(id);
  if (!container || container->cleaned() || Runs(container.get())) {
    retries_.lock()->erase(id.str());
    return Status::Ok();
  }
  killed_.lock()->erase(id.str());
  Status done = TakeDown(cc.Detached(CleanTimeout()), *container);
  if (!done.ok()) {
    p_.metrics.CleanupFailed();
    return std::move(done).While("take down container {}", id);
  }
  CRISP_TRY(os::RemoveTree(p_.config.layout.RestoreOf(id)));
  retries_.lock()->erase(id.str());
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
    CRISP_TRY(TakeDown(cc.Detached(CleanTimeout()), *container));
    CRISP_TRY(os::RemoveTree(layout.Bundle(id)));
    CRISP_TRY(os::RemoveFile(layout.ExitPath(id)));
    return os::RemoveTree(layout.VolumesOf(id));
  }();
  logs_.Forget(id);
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
  {
    auto retries = retries_.lock();
    Retry& retry = (*retries)[id.str()];
    if (std::exchange(retry.under_way, true)) return;
  }
  // For the lock: whoever holds it for longer cleans it, or the sweep comes back to it.
  const CallContext cc =
      p_.pool.operations().Track(CallContext::Background(CleanTimeout(), "clean"),
                                 {.kind = "clean up", .subjects = {id.str()}});
  const auto failed = [this, id](const Status& why) {
    log::Warn("an ended container is not cleaned up yet", {{"container", id}, {"error", why}});
    auto retries = retries_.lock();
    if (!p_.state.FindContainer(id)) {
      retries->erase(id.str());
      return;
    }
    Retry& retry = (*retries)[id.str()];
    retry.under_way = false;
    retry.due =
        p_.clock.Now() + kRetryPeriod * ((1 << std::min(retry.failures++, kMaxDoublings)) - 1);
  };
  const auto clean = [this, cc, id, failed] {
    auto held = p_.locks.Lock(cc, LockKey(id));
    const Status done = held.ok() ? Clean(cc, id) : held.status();
    if (!done.ok()) failed(cc.operation()->Answer(done));
  };
  if (const Status begun = p_.pool.Submit(work::Lane::kClean, cc, clean, failed); !begun.ok()) {
    failed(begun);
  }
}

void Lifecycle::CleanAgain(const ContainerId& id) {
  {
    auto retries = retries_.lock();
    const auto found = retries->find(id.str());
    if (found != retries->end() && found->second.due > p_.clock.Now()) return;
  }
  CleanLater(id);
}

}  // namespace crisp::rund
