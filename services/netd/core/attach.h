#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cri/v1/api.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/guarded.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "libs/os/file_lock.h"
#include "libs/work/lock_table.h"
#include "services/netd/config.h"
#include "services/netd/core/conf_list.h"
#include "services/netd/core/host_ports.h"
#include "services/netd/core/plugin.h"
#include "services/netd/core/readiness.h"
#include "services/netd/core/result_cache.h"
#include "services/netd/core/retries.h"
#include "services/netd/metrics.h"
#include "services/netd/store/attachments.h"

namespace crisp::netd {

struct PodNetwork {
  std::string netns_path;
  std::vector<std::string> ips;
  std::string cni_result;  // JSON
};

/// Attaches pods to the network and detaches them. One pod's calls go one after the other,
/// different pods' in parallel. Any thread; all calls block on plugins.
///
/// Where a SIGKILL may fall in Attach, and what the next start (or the next Attach or Detach of the
/// pod) finds:
///   before the intent                   nothing
///   after it, before or during the ADD  kAttaching, maybe a netns, an IP, a plugin that still
///                                       runs: it ends or is killed, then DEL, unpin, forget
///   after ADD, before it is recorded    the same
///   after that                          kAttached: host ports and cached result are made good,
///                                       by the next Attach with the same answer, else by netd
/// In Detach: after the intent kDetaching: DEL again (plugins must bear that), unpin, forget.
/// A DEL that fails is owed: the record stays kDetaching, and it is tried again with growing
/// pauses. In CollectGarbage: the plugins still run, and free by a list that is old: they are ended
/// before anything else (Recover). After a reboot (another boot id) no netns is left: DEL with an
/// empty one, which gives the IPs back.
class Networks {
 public:
  /// All of them outlive this.
  Networks(Config config, std::string boot_id, Readiness& readiness, const PluginRunner& plugins,
           Attachments& store, Metrics& metrics, Clock& clock);

  /// Idempotent by pod: attached already is the same answer, a half-done attempt is undone first.
  /// Waits up to network_wait for a network that is not ready. Goes on when the caller leaves,
  /// within attach_timeout. `userns_path`: the user namespace that the network namespace is to
  /// belong to; empty: ours. Errors: kUnavailable: no network; kInternal with the plugin's words,
  /// undone; kDeadlineExceeded: a plugin hung, undone; kInvalidArgument: names, ports, sysctls.
  /// `answer` gets the network as soon as the pod may use it; what nobody waits for comes after.
  Result<PodNetwork> Attach(const CallContext& cc, const PodId& pod,
                            const runtime::v1::PodSandboxConfig& config,
                            const std::string& userns_path = {},
                            const std::function<void(const PodNetwork&)>& answer = nullptr);

  /// Idempotent: never attached or detached already is Ok. A failure while the namespace is still
  /// there is the caller's to know, and the plugin's words; once it is gone (a reboot, a plugin
  /// whose program is no longer installed, host ports that nft does not take away) what DEL still
  /// owes elsewhere is ours alone. Either way
  /// it is tried again in the background (TakeDue) until it is done.
  Status Detach(const CallContext& cc, const PodId& pod);

  /// CNI CHECK. False: the network's configuration has none, nobody was asked. kNotFound: not
  /// attached; else the plugin's words.
  Result<bool> Check(const CallContext& cc, const PodId& pod);

  /// `live`: the pods that exist, as rund has it: what belongs to none of `live` and is older than
  /// the grace is to be detached from now on, as are failed detachments that nobody retries:
  /// TakeDue hands them out. No plugin runs here: one that hangs would hold up the rest. Namespaces
  /// without a record are unpinned. Pods under work are left alone. The pods that are newly owed.
  Result<std::vector<PodId>> Reconcile(const CallContext& cc, const std::set<PodId>& live);

  /// Whether Reconcile has been called since the start: before, the records may name pods that are
  /// gone.
  bool Reconciled() const { return reconciled_; }

  /// Before the first call after a start: ends the GC plugins of an earlier life; all of Unfinished
  /// is owed; a network that pods are on was ready; results that were not cached are.
  Status Recover(const CallContext& cc);
  /// Pods whose attachment must be undone (half done by this instance, or of an
  /// earlier boot), oldest first. Pass each to RollBack.
  Result<std::vector<PodId>> Unfinished();
  /// Undoes one of them, unless somebody was quicker.
  Status RollBack(const CallContext& cc, const PodId& pod);
  /// Pods whose detachment is owed and due: pass each to RollBack.
  std::vector<PodId> TakeDue() { return retries_.TakeDue(); }
  /// A pod of TakeDue was not passed on: later, then.
  void PutBack(const PodId& pod) { retries_.Failed(pod); }
  std::size_t Owed() const { return retries_.size(); }
  /// Those of them that fail again and again.
  std::vector<Retries::Owed> OwedForLong() const { return retries_.FailedOften(kManyFailures); }

  /// The builtin host ports as the records have them; the first time also when no pod has any, for
  /// what an earlier life may have left, else nothing is run then.
  Status SyncHostPorts(const CallContext& cc);

  /// Takes back addresses that are nobody's (FreeNobodys), of each network; then CNI GC of each
  /// whose plugins know it, with the attachments that we have. That waits until
  /// no ADD and DEL is under way, and holds new ones up from the first on, for gc_patience and
  /// gc_timeout a network at most. kUnavailable: they did not end in time; the first plugin's
  /// failure.
  Status CollectGarbage(const CallContext& cc);

  /// See Attachments.
  bool WantsCheckpoint() const { return store_.WantsCheckpoint(); }
  Status Checkpoint() { return store_.Checkpoint(); }

 private:
  /// After about 7 s.
  static constexpr unsigned kManyFailures = 3;
  /// Nobody else works on the pod, in this instance or another.
  struct Held {
    work::LockTable::Held here;
    os::FileLock everywhere;
  };
  /// kDeadlineExceeded, kCancelled: another operation was at it all the time.
  Result<Held> LockPod(const CallContext& cc, const PodId& pod);
  /// kUnavailable: somebody is at it.
  Result<Held> TryLockPod(const PodId& pod);
  struct Attached {
    Attachment attachment;
    PodNetwork network;
    bool is_new = false;
  };
  /// The attachment that the pod has already, or a new one.
  Result<Attached> AttachLocked(const CallContext& cc, const PodId& pod,
                                const runtime::v1::PodSandboxConfig& config,
                                const std::string& userns_path,
                                std::chrono::nanoseconds& plugin_time);
  Result<std::shared_ptr<const ConfList>> WaitForNetwork(const CallContext& cc);
  Result<Attached> AttachNew(const CallContext& cc, const PodId& pod,
                             const runtime::v1::PodSandboxConfig& config,
                             const std::string& userns_path, std::chrono::nanoseconds& plugin_time);
  /// Namespace, ADD, late sysctls; `attachment` is recorded, and gets its result. That one's
  /// addresses.
  Result<std::vector<std::string>> Add(const CallContext& cc, const ConfList& list,
                                       const runtime::v1::PodSandboxConfig& config,
                                       const std::string& userns_path, PluginArgs args,
                                       Attachment& attachment,
                                       std::chrono::nanoseconds& plugin_time);
  /// The builtin host ports of what is recorded as kAttached; idempotent. On failure the attachment
  /// is undone.
  Status OpenPorts(const CallContext& cc, const Attachment& attachment);
  void CacheResult(const Attachment& attachment) const;
  Result<PodNetwork> Describe(const Attachment& attachment) const;
  Result<PluginArgs> ArgsOf(const Attachment& attachment) const;
  bool IsStale(const Attachment& attachment) const;
  bool IsPinned(const PodId& pod) const;
  /// Nothing of it is in use any more, though a DEL is still owed: garbage.
  bool IsOver(const Attachment& attachment) const;
  bool NeedsRollBack(const Attachment& attachment) const;
  /// DEL, unpin, forget; with the pod's lock held. A failure is noted for later.
  Status Undo(const CallContext& cc, const Attachment& attachment);
  Status UndoNow(const CallContext& cc, const Attachment& attachment);
  Status EndPlugins(const CallContext& cc, const Attachment& attachment);
  Status RunDel(const CallContext& cc, const Attachment& attachment) const;
  Status UnpinStrays(const std::set<PodId>& live);
  /// Keeps GC away while it is held. A GC that waits goes first.
  Result<os::FileLock> KeepGcAway(const CallContext& cc) const;
  /// With the turn ours or shared, when no netd collects: whoever has the lock alone are the
  /// plugins of a netd that died, and they are ended.
  Result<os::FileLock> ShareGcLock(const CallContext& cc) const;
  Status CollectNetwork(const CallContext& cc, const ConfList& list) const;
  /// The pods whose attachments to the network live.
  Result<std::vector<std::string>> ValidPods(const std::string& network) const;
  /// What the environment of a GC has, whichever instance's, and that of no other process.
  std::string GcMark() const;

  const Config config_;
  const std::string boot_id_;
  Readiness& readiness_;
  const PluginRunner& plugins_;
  Attachments& store_;
  Metrics& metrics_;
  Clock& clock_;
  const ResultCache cache_;
  HostPorts ports_;
  work::LockTable locks_;
  Retries retries_;
  Guarded<std::set<PodId>> inherited_;  // whose plugins an earlier life may have left at work
  std::atomic<unsigned> adding_ = 0;    // ADDs under way
  std::atomic<bool> reconciled_ = false;
  std::atomic<bool> ports_synced_ = false;
};

}  // namespace crisp::netd
