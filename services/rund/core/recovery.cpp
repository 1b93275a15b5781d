#include "services/rund/core/recovery.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"
#include "services/rund/core/pod_files.h"
#include "services/rund/core/resources.h"
#include "services/rund/core/status.h"
#include "services/rund/runtime/checkpoint_archive.h"
#include "services/rund/runtime/conmon.h"
#include "services/rund/runtime/criu.h"
#include "services/rund/runtime/rootfs.h"
#include "services/rund/runtime/volume_mounts.h"

// Where SIGKILL may fall, and what the next start finds and does.
//
//   ReservePod, ReserveContainer   before the commit: nothing. After: a RESERVED record, which a
//                                  retry finds by its key, or which is removed when it is
//                                  abandoned.
//   PreparePod                     RESERVED, with its configuration once the intent is committed;
//                                  perhaps a cgroup, mounts, pins. A retry takes them down and
//                                  makes them anew; removing the pod takes them down.
//   StartPod                       PREPARED; perhaps a pause process, alone in its own cgroup: a
//                                  retry kills that first, removing the pod as well. One that has
//                                  not come there yet has ended with us.
//   ExecSync                       no record: crisp-exec has killed the command.
//   CreateContainer                RESERVED and `creating`: bundle, rootfs mounts, conmon at any
//                                  point of its start, the runtime's `create` half way. All undone
//                                  here, under the container's lock; a retry waits for that, then
//                                  begins anew.
//   StartContainer                 CREATED and `starting_at`: the runtime's `start` may still be
//                                  under way (it is not killed with us). We wait for it, then see
//                                  whether the container still awaits it. Started: RUNNING, and the
//                                  retry is answered with success once; not started: CREATED.
//   between exit and its commit    RUNNING, an exit file in place: read, stored, told.
//   crisp-log killed meanwhile     RUNNING, its log limited and nobody to write it: started again
//                                  here and by each sweep. (It outlives us, and ends with conmon;
//                                  before that has begun, with us: nothing to undo.)
//   conmon killed meanwhile        RUNNING, neither exit file nor monitor: the container is killed,
//                                  EXITED 255.
//   after the exit's commit        EXITED and not `cleaned`: cleaned here.
//   StartContainer of one that     the same, and `restores`: conmon may be having its processes
//   is restored                    made. We wait for that. They run: RUNNING, as above; else all of
//                                  it is killed: CREATED, with the checkpoint still staged.
//   StageCheckpoint                RESERVED, and some of the files, perhaps a mounted image: a
//                                  retry begins anew, removing the container takes them away.
//   CheckpointContainer            `checkpoint`: the runtime and CRIU may be at work still (they
//                                  are not killed with us), the cgroup be frozen, the archive half
//                                  there. We wait until its time is over, kill them, thaw the
//                                  container, remove the files. An archive that has its name is
//                                  whole, and stays.
//   StopContainer                  `stop_asked_at`: the signal counts as sent (between commit and
//                                  signal it is not: then SIGKILL comes at the end of the grace);
//                                  the wait goes on until the grace is over, also where a start was
//                                  interrupted as well.
//   UpdateContainerResources,      `update`: what the files of the cgroup held is written back.
//   UpdatePodSandboxResources
//   RemoveContainer, RemovePod     REMOVING: removed here.
//   StopPod                        `stopping` and not `torn_down`: stopped here.
//   erased record                  always last, when nothing else is left. Directories without a
//                                  record (one that cannot be read, a database that was lost) are
//                                  taken down here, a pod with its containers, pause and cgroup.
//   reboot                         another boot id: pods NOTREADY, containers EXITED 255, creates
//                                  undone, then as above.
namespace crisp::rund {
namespace {

// Names in a directory of ours that no record knows.
std::vector<std::string> Unknown(const std::string& dir, const std::set<std::string>& known) {
  std::vector<std::string> out;
  const auto names = os::ListDir(dir);
  if (!names.ok()) return out;
  std::copy_if(
      names->begin(), names->end(), std::back_inserter(out),
      [&known](const std::string& name) { return IsFullId(name) && !known.contains(name); });
  return out;
}

}  // namespace

Status Recovery::Begin(const std::string& boot_id) {
  const std::string last_boot = CRISP_TRY(p_.state.records().BootId());
  if (last_boot != boot_id) {
    if (!last_boot.empty()) CRISP_TRY(AfterReboot());
    CRISP_TRY(p_.state.records().SetBootId(boot_id));
  }
  for (const ContainerRef& container : p_.state.Containers()) {
    if (!container->creating() && container->starting_at() == 0) continue;
    const std::string key = LockKey(ContainerId(container->id()));
    held_[container->id()] =
        std::make_shared<work::LockTable::Held>(CRISP_TRY(p_.locks.TryLock(key)));
  }
  return Status::Ok();
}

Status Recovery::AfterReboot() {
  log::Info("the node was rebooted; nothing of the records runs any more");
  for (const ContainerRef& container : p_.state.Containers()) {
    if (!Runs(container.get())) continue;
    CRISP_TRY(p_.state.ChangeContainer(ContainerId(container->id()), [&](ContainerRecord& record) {
      const std::int64_t now = p_.state.NextTimestamp();
      record.set_starting_at(0);
      record.set_state(runtime::v1::CONTAINER_EXITED);
      record.set_exit_code(255);
      record.set_reason("Error");
      record.set_message("NodeRebooted: the node was restarted while the container existed");
      record.set_finished_at(now);
      return Status::Ok();
    }));
  }
  for (const PodRef& pod : p_.state.Pods()) {
    const bool is_down = pod->phase() == v1::REMOVING || pod->phase() == v1::STOPPED;
    if (is_down && !pod->has_update()) continue;
    CRISP_TRY(p_.state.ChangePod(PodId(pod->id()), [&](PodRecord& record) {
      record.clear_update();  // what it would write back has gone
      if (is_down) return Status::Ok();
      record.clear_pause();
      if (record.phase() == v1::LIVE) {
        record.set_phase(v1::STOPPED);
        record.set_stopping(true);
      } else {
        record.set_phase(v1::RESERVED);  // a retry prepares it again
      }
      return Status::Ok();
    }));
  }
  return Status::Ok();
}

void Recovery::Continue(const CallContext& cc) {
  for (const ContainerRef& container : p_.state.Containers()) TakeUpContainer(cc, container);
  for (const PodRef& pod : p_.state.Pods()) TakeUpPod(cc, pod);
  Later(work::Lane::kBulk, cc, [this, cc] { lifecycle_.CheckAll(cc); });
  Later(work::Lane::kBulk, cc, [this, cc] { RemoveUnknown(cc); });
}

void Recovery::Later(work::Lane lane, const CallContext& cc, std::function<void()> task) {
  log::IfError("take up interrupted work", p_.pool.Submit(lane, cc, std::move(task)));
}

void Recovery::TakeUpContainer(const CallContext& cc, const ContainerRef& container) {
  const ContainerId id(container->id());
  if (container->has_checkpoint()) {
    Later(work::Lane::kSlowWait, cc, [this, cc, id] { checkpoints_.TakeUp(cc, id); });
  }
  if (const auto held = held_.extract(id.str()); !held.empty()) {
    Later(work::Lane::kWait, cc, [this, cc, id, lock = held.mapped()] {
      log::IfError("undo an interrupted create", lifecycle_.UndoCreate(cc, id));
      log::IfError("interrupted start", lifecycle_.ResolveStart(cc, id));
      lock->Release();
    });
    return;
  }
  if (container->phase() == v1::REMOVING) {
    Later(work::Lane::kWait, cc, [this, cc, id] {
      const auto removed = containers_.Remove(cc, id);
      log::IfError("finish a remove", removed.ok() ? Status::Ok() : removed.status());
    });
    return;
  }
  if (container->phase() != v1::LIVE) return;
  if (!Runs(container.get())) {
    if (!container->cleaned()) lifecycle_.CleanLater(id);
    return;
  }
  if (container->has_update()) {
    Later(work::Lane::kWait, cc, [this, cc, id] {
      const auto held = p_.locks.Lock(cc, LockKey(id));
      if (held.ok()) log::IfError("take back an update", UndoUpdate(cc, p_, id));
    });
  }
  // What it was made from is needed no more.
  if (!container->restores()) {
    log::IfError("a checkpoint's files", os::RemoveTree(p_.config.layout.RestoreOf(id)));
  }
  // The supervisor finds those whose monitor has ended, with or without an exit file.
  if (!container->restores()) p_.supervisor->WatchMonitor(id, ProcessOf(container->monitor()));
  if (os::Exists(p_.config.layout.ExitPath(id))) lifecycle_.OnExitFile(id);
  if (container->stop_asked_at() != 0) lifecycle_.ResumeStop(id);
}

void Recovery::TakeUpPod(const CallContext& cc, const PodRef& pod) {
  const PodId id(pod->id());
  if (pod->phase() == v1::REMOVING) {
    Later(work::Lane::kWait, cc, [this, cc, id] {
      const auto removed = pods_.Remove(cc, id);
      log::IfError("finish a pod's remove", removed.ok() ? Status::Ok() : removed.status());
    });
  } else if (pod->stopping() && !pod->torn_down()) {
    Later(work::Lane::kWait, cc, [this, cc, id] {
      const auto stopped = pods_.Stop(cc, id);
      log::IfError("finish a pod's stop", stopped.ok() ? Status::Ok() : stopped.status());
    });
  } else if (pod->phase() == v1::LIVE && pod->has_pause()) {
    p_.supervisor->WatchPause(id, ProcessOf(pod->pause()));
  }
  if (pod->has_update()) {
    Later(work::Lane::kWait, cc, [this, cc, id] {
      const auto held = p_.locks.Lock(cc, LockKey(id));
      if (held.ok()) log::IfError("take back an update", UndoUpdate(cc, p_, id));
    });
  }
}

void Recovery::RemoveUnknown(const CallContext& cc) {
  const Layout& layout = p_.config.layout;
  // Directories first, records second: what is made meanwhile has its record before its directory.
  std::vector<std::string> bundles = Unknown(layout.ContainersDir(), {});
  std::vector<std::string> exits = Unknown(layout.ExitsDir(), {});
  std::vector<std::string> volumes = Unknown(layout.VolumesDir(), {});
  std::vector<std::string> checkpoints = Unknown(layout.CheckpointsDir(), {});
  std::vector<std::string> restores = Unknown(layout.RestoresDir(), {});
  std::vector<std::string> pods = Unknown(layout.PodsDir(), {});
  const auto known = [this](const std::string& id) {
    return p_.state.FindContainer(ContainerId(id)) != nullptr;
  };
  for (const std::string& id : bundles) {
    if (known(id)) continue;
    log::Warn("removing a container that no record knows", {{"container", id}});
    log::IfError("remove it", RemoveUnknownContainer(cc, ContainerId(id)));
  }
  for (const std::string& id : exits) {
    if (!known(id)) log::IfError("exit file", os::RemoveFile(layout.ExitPath(ContainerId(id))));
  }
  for (const std::string& id : volumes) {
    if (!known(id)) log::IfError("volumes", os::RemoveTree(layout.VolumesOf(ContainerId(id))));
  }
  for (const std::string& id : checkpoints) {
    if (known(id)) continue;
    KillDump(CheckpointDir{layout.CheckpointOf(ContainerId(id))}.Images());
    log::IfError("a checkpoint", os::RemoveTree(layout.CheckpointOf(ContainerId(id))));
  }
  for (const std::string& id : restores) {
    if (known(id)) continue;
    log::IfError("a checkpoint's files", os::RemoveTree(layout.RestoreOf(ContainerId(id))));
  }
  for (const std::string& id : pods) {
    if (p_.state.FindPod(PodId(id))) continue;
    log::Warn("removing a pod that no record knows", {{"pod", id}});
    log::IfError("remove it", RemoveUnknownPod(cc, PodId(id)));
  }
}

Status Recovery::RemoveUnknownPod(const CallContext& cc, const PodId& id) {
  const Layout& layout = p_.config.layout;
  for (const ContainerRef& container : p_.state.ContainersOf(id)) {
    const auto removed = containers_.Remove(cc, ContainerId(container->id()));
    if (!removed.ok()) return removed.status();
  }
  const auto note = ReadCgroupNote(layout, id);
  if (note.ok()) {
    CRISP_TRY(p_.cgroup_driver.RemovePause(cc, note->cgroup, id));
    if (note->ours) CRISP_TRY(p_.cgroup_driver.RemovePod(cc, note->cgroup));
  } else if (note.code() != Code::kNotFound) {
    log::Warn("its cgroup is not known", {{"pod", id}, {"error", note.status()}});
  }
  return RemovePodFiles(layout, id);
}

Status Recovery::RemoveUnknownContainer(const CallContext& cc, const ContainerId& id) {
  const Layout& layout = p_.config.layout;
  const std::string bundle = layout.Bundle(id);
  KillMonitors(bundle);
  // One that does not answer keeps the others from nothing.
  Status first;
  for (const std::string& name : p_.runtimes.Names()) {
    Status deleted = p_.runtimes.Recorded(name)->Delete(cc.Within(p_.config.runtime_timeout), id);
    if (first.ok()) first = std::move(deleted);
  }
  const auto text = os::ReadFile(layout.SpecPath(id));
  if (text.ok()) {
    const auto spec = json::Parse(*text);
    const std::string cgroup =
        spec.ok() ? json::OptString(*spec, "linux.cgroupsPath").value_or("") : "";
    CRISP_TRY(p_.cgroup_driver.RemoveBySpec(cc, cgroup, id));
  }
  if (os::Exists(layout.LowersDir(id))) CRISP_TRY(os::UnmountBelow(layout.LowersDir(id)));
  CRISP_TRY(UnmountVolumes(layout.MountsOf(id)));
  CRISP_TRY(UnmountRootfs(layout.Rootfs(id)));
  CRISP_TRY(std::move(first));
  return os::RemoveTree(bundle);
}

}  // namespace crisp::rund
