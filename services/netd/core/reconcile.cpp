#include "services/netd/core/attach.h"

#include <chrono>
#include <map>
#include <optional>
#include <utility>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/namespaces.h"
#include "services/netd/core/leftovers.h"
#include "services/netd/core/lock_wait.h"

// What Networks does without being asked for one pod: reconcile, roll back, garbage.
namespace crisp::netd {

Result<std::vector<PodId>> Networks::Reconcile(const CallContext& cc, const std::set<PodId>& live) {
  std::vector<PodId> freed;
  const WallTime now = clock_.Wall();
  for (const Attachment& seen : CRISP_TRY(store_.List())) {
    const auto wants_undo = [this, &live, now](const Attachment& attachment) {
      if (attachment.boot_id != boot_id_) return true;
      if (attachment.phase == Phase::kDetaching && attachment.instance == config_.instance) {
        return true;
      }
      return !live.contains(attachment.pod) && now - attachment.created >= config_.orphan_grace;
    };
    if (!wants_undo(seen) || retries_.Has(seen.pod)) continue;
    CRISP_TRY(cc.Check());
    const Result<Held> held = TryLockPod(seen.pod);
    if (!held.ok()) continue;  // somebody is at it
    const std::optional<Attachment> attachment = CRISP_TRY(store_.Get(seen.pod));
    if (!attachment || !wants_undo(*attachment)) continue;
    if (!NeedsRollBack(*attachment)) {
      CRISP_TRY(store_.SetPhase(seen.pod, Phase::kDetaching, config_.instance));
    }
    retries_.Add(seen.pod);
    if (!live.contains(seen.pod)) metrics_.OrphanFreed();
    freed.push_back(seen.pod);
  }
  log::IfError("unpin namespaces without a record", UnpinStrays(live));
  reconciled_ = true;
  return freed;
}

Status Networks::UnpinStrays(const std::set<PodId>& live) {
  for (const std::string& name : CRISP_TRY(os::ListDir(config_.layout.NetnsDir()))) {
    const PodId pod(name);
    if (!IsIdOrPrefix(name) || live.contains(pod)) continue;
    const Result<Held> held = TryLockPod(pod);
    if (!held.ok()) continue;
    // The record comes before the pin, so that a pin without one is nobody's.
    if (CRISP_TRY(store_.Get(pod))) continue;
    CRISP_TRY(os::UnpinNamespace(config_.layout.NetnsPath(pod)));
    log::Warn("network namespace without a record unpinned", {{"pod", pod}});
  }
  return Status::Ok();
}

bool Networks::NeedsRollBack(const Attachment& attachment) const {
  if (attachment.boot_id != boot_id_) return true;
  // Another instance may be in the middle of its own.
  return attachment.phase != Phase::kAttached && attachment.instance == config_.instance;
}

Status Networks::SyncHostPorts(const CallContext& cc) {
  bool any = config_.builtin_hostports && !ports_synced_;
  for (const Attachment& attachment : CRISP_TRY(store_.List())) {
    any = any || !CRISP_TRY(PortElementsOf(attachment)).empty();
  }
  if (any) CRISP_TRY(ports_.Sync(cc));
  ports_synced_ = true;
  return Status::Ok();
}

Result<std::vector<PodId>> Networks::Unfinished() {
  std::vector<PodId> pods;
  for (const Attachment& attachment : CRISP_TRY(store_.List())) {
    if (NeedsRollBack(attachment)) pods.push_back(attachment.pod);
  }
  return pods;
}

Status Networks::Recover(const CallContext& cc) {
  log::IfError("end the garbage collection of an earlier run", EndLeftovers(cc, {GcMark()}));
  const std::vector<PodId> pods = CRISP_TRY(Unfinished());
  if (!pods.empty()) log::Info("attachments are to be undone", {{"count", pods.size()}});
  for (const PodId& pod : pods) retries_.Add(pod);
  for (const Attachment& attachment : CRISP_TRY(store_.List())) {
    const bool lives = attachment.phase == Phase::kAttached && !IsStale(attachment);
    if (lives) readiness_.Assume(attachment.network);
  }
  return Status::Ok();
}

Status Networks::RollBack(const CallContext& cc, const PodId& pod) {
  // It was handed out once: unless it is done it comes again.
  Cleanup again([this, &pod] { retries_.Failed(pod); });
  const Held held = CRISP_TRY(LockPod(cc, pod));
  const std::optional<Attachment> attachment = CRISP_TRY(store_.Get(pod));
  // An Attach or Detach that came first has dealt with it.
  if (!attachment || !NeedsRollBack(*attachment)) {
    again.Dismiss();
    retries_.Done(pod);
    return Status::Ok();
  }
  Status undone = Undo(cc, *attachment);
  again.Dismiss();  // it has noted how it ended
  CRISP_TRY(std::move(undone).While("roll back pod {}", pod.Short()));
  metrics_.RolledBack();
  return Status::Ok();
}

Status Networks::CollectGarbage(const CallContext& cc) {
  // By name: the configuration in force is the one that counts, then that of the newest pod.
  std::map<std::string, std::pair<ConfList, std::vector<std::string>>> networks;
  const auto current = readiness_.Wait(cc, std::chrono::nanoseconds(0));
  if (current.ok()) networks[(*current)->name].first = **current;
  for (const Attachment& attachment : CRISP_TRY(store_.List())) {
    auto& [list, pods] = networks[attachment.network];
    if (!current.ok() || (*current)->name != attachment.network) {
      list = CRISP_TRY(ParseConfList(attachment.conf, ""));
    }
  }
  Status first;
  for (auto& [name, network] : networks) {
    auto& [list, pods] = network;
    if (!PluginRunner::CanGc(list)) continue;
    const auto try_alone = [this] { return os::FileLock::TryLock(config_.layout.GcLock()); };
    const os::FileLock alone = CRISP_TRY(WaitForLock(cc, try_alone));
    // Looked at again: with the lock nothing changes any more.
    for (const Attachment& attachment : CRISP_TRY(store_.List())) {
      if (attachment.network == name && !IsOver(attachment)) pods.push_back(attachment.pod.str());
    }
    Status done = plugins_.Gc(cc.Within(config_.gc_timeout), list, pods, GcMark());
    metrics_.GarbageCollected(done.code());
    // With what one that was ended has started: nothing of it runs beside the next ADD.
    // Short: everybody waits.
    constexpr std::chrono::seconds kEndPatience(2);
    if (!done.ok()) {
      const Status ended = EndLeftovers(cc.Within(kEndPatience), {GcMark()});
      log::IfError("end a garbage collection", ended);
    }
    if (!done.ok() && first.ok()) first = std::move(done);
  }
  return first;
}

// While its host ports may still lead to the address, that must not become another pod's.
bool Networks::IsOver(const Attachment& attachment) const {
  if (attachment.phase != Phase::kDetaching || IsPinned(attachment.pod)) return false;
  if (attachment.boot_id != boot_id_) return true;
  const auto ports = PortElementsOf(attachment);
  return ports.ok() && ports->empty();
}

// For each network, also one whose plugins know no GC: that is the record's word, and the
// configuration of today may say otherwise.
Result<os::FileLock> Networks::KeepGcAway(const CallContext& cc) const {
  const auto shared = [this] { return os::FileLock::TryLockShared(config_.layout.GcLock()); };
  Result<os::FileLock> lock = WaitForLock(cc, shared);
  if (lock.ok()) return lock;
  // Not kUnavailable, which is a missing program's.
  CRISP_TRY(cc.Check().While("wait for the network's garbage collection"));
  return lock.status();
}

std::string Networks::GcMark() const {
  return fmt::format("CRISP_NETD_GC={}@{}", config_.layout.StateDir(), config_.instance);
}

}  // namespace crisp::netd
