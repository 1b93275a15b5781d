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
#include "services/netd/core/host_local.h"
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
  // Another instance that has the turn has seen to it.
  if (const auto turn = os::FileLock::TryLock(config_.layout.GcTurnLock()); turn.ok()) {
    log::IfError("end the garbage collection of an earlier run", ShareGcLock(cc).status());
  }
  const std::vector<PodId> pods = CRISP_TRY(Unfinished());
  if (!pods.empty()) log::Info("attachments are to be undone", {{"count", pods.size()}});
  inherited_.lock()->insert(pods.begin(), pods.end());
  for (const PodId& pod : pods) retries_.Add(pod);
  for (const Attachment& attachment : CRISP_TRY(store_.List())) {
    if (attachment.phase != Phase::kAttached || IsStale(attachment)) continue;
    readiness_.Assume(attachment.network);
    if (!cache_.Has(attachment)) CacheResult(attachment);
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
  std::map<std::string, ConfList> networks;
  const auto current = readiness_.Wait(cc, std::chrono::nanoseconds(0));
  if (current.ok()) networks[(*current)->name] = **current;
  for (const Attachment& attachment : CRISP_TRY(store_.List())) {
    if (current.ok() && (*current)->name == attachment.network) continue;
    networks[attachment.network] = CRISP_TRY(ParseConfList(attachment.conf, ""));
  }
  Status first;
  for (const auto& [name, list] : networks) {
    log::IfError("free addresses that are nobody's", FreeNobodys(cc, list).status());
    if (!PluginRunner::CanGc(list)) continue;
    Status done = CollectNetwork(cc, list);
    if (!done.ok() && first.ok()) first = std::move(done);
  }
  return first;
}

Status Networks::CollectNetwork(const CallContext& cc, const ConfList& list) const {
  // From now on no ADD or DEL begins. One that hangs must not hold up all others.
  const CallContext patience = cc.Within(config_.gc_patience);
  const os::FileLock turn = CRISP_TRY(WaitForLock(patience, "netd's garbage collection", [this] {
    return os::FileLock::TryLock(config_.layout.GcTurnLock());
  }));
  CRISP_TRY(ShareGcLock(patience));
  os::FileLock alone = CRISP_TRY(WaitForLock(patience, "netd's garbage collection", [this] {
    return os::FileLock::TryLock(config_.layout.GcLock());
  }));
  // With the lock nothing changes any more.
  const std::vector<std::string> pods = CRISP_TRY(ValidPods(list.name));
  const std::chrono::nanoseconds since = SinceBoot();
  Status done = plugins_.Gc(cc.Within(config_.gc_timeout), list, pods, GcMark(), alone.fd());
  metrics_.GarbageCollected(done.code());
  // With what one that was ended has started: nothing of it runs beside the next ADD. Short:
  // everybody waits.
  constexpr std::chrono::seconds kEndPatience(2);
  if (!done.ok()) {
    const Status ended = EndLeftovers(cc.Within(kEndPatience), {GcMark()}, since);
    log::IfError("end a garbage collection", ended);
  }
  alone.Unlock();  // whatever a plugin has started to stay
  return done;
}

Result<std::vector<std::string>> Networks::ValidPods(const std::string& network) const {
  std::vector<std::string> pods;
  for (const Attachment& attachment : CRISP_TRY(store_.List())) {
    if (attachment.network == network && !IsOver(attachment)) pods.push_back(attachment.pod.str());
  }
  return pods;
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
  // Only to let one that waits go first.
  const Result<os::FileLock> turn = WaitForLock(cc, "the network's garbage collection", [this] {
    return os::FileLock::TryLockShared(config_.layout.GcTurnLock());
  });
  Result<os::FileLock> lock = turn.ok() ? ShareGcLock(cc) : turn.status();
  if (lock.code() != Code::kUnavailable) return lock;
  // Not kUnavailable, which is a missing program's.
  CRISP_TRY(cc.Check().While("wait for the network's garbage collection"));
  return DeadlineExceeded("wait for the network's garbage collection");
}

Result<os::FileLock> Networks::ShareGcLock(const CallContext& cc) const {
  return WaitForLock(cc, "the network's garbage collection", [this, &cc]() -> Result<os::FileLock> {
    Result<os::FileLock> lock = os::FileLock::TryLockShared(config_.layout.GcLock());
    if (lock.code() == Code::kUnavailable) CRISP_TRY(EndLeftovers(cc, {GcMark()}));
    return lock;
  });
}

std::string Networks::GcMark() const { return "CRISP_NETD_GC=" + config_.layout.StateDir(); }

}  // namespace crisp::netd
