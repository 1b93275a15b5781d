#pragma once

#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cri/v1/api.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "libs/work/lock_table.h"
#include "services/netd/config.h"
#include "services/netd/core/conf_list.h"
#include "services/netd/core/plugin.h"
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
///   runs:
///                                       it is killed, then DEL, unpin, forget
///   after ADD, before it is recorded    the same
///   after that                          kAttached: the same answer again
/// In Detach: after the intent kDetaching: DEL again (plugins must bear that), unpin, forget.
/// After a reboot (another boot id) no netns is left: DEL with an empty one, which gives the IPs
/// back.
class Networks {
 public:
  /// All of them outlive this.
  Networks(Config config, std::string boot_id, ConfSource& conf, Attachments& store,
           Metrics& metrics, Clock& clock);

  /// Idempotent by pod: attached already is the same answer, a half-done attempt is undone first.
  /// Goes on when the caller leaves, within attach_timeout. Errors: kUnavailable: no network
  /// configuration, or a plugin's program is missing; kInternal with the plugin's words, undone;
  /// kDeadlineExceeded: a plugin hung, undone; kInvalidArgument: names, ports, sysctls.
  Result<PodNetwork> Attach(const CallContext& cc, const PodId& pod,
                            const runtime::v1::PodSandboxConfig& config);

  /// Idempotent: never attached or detached already is Ok. After a failure the record stays and
  /// Reconcile tries again.
  Status Detach(const CallContext& cc, const PodId& pod);

  /// The network's name; kUnavailable with the loader's words when pods cannot get one.
  Result<std::string> Ready();

  /// Finishes what needs it: detaches what belongs to none of `live` and is older than the grace,
  /// retries failed detachments, unpins namespaces without a record. Pods under work are left
  /// alone. The pods that were freed. A failure is logged and tried again next time.
  Result<std::vector<PodId>> Reconcile(const CallContext& cc, const std::set<PodId>& live);

  /// After a start: pods whose attachment must be undone (half done by this instance, or of an
  /// earlier boot), oldest first. Pass each to RollBack.
  Result<std::vector<PodId>> Unfinished();
  /// Undoes one of them, unless somebody was quicker.
  Status RollBack(const CallContext& cc, const PodId& pod);

 private:
  Result<PodNetwork> AttachNew(const CallContext& cc, const PodId& pod,
                               const runtime::v1::PodSandboxConfig& config,
                               std::chrono::nanoseconds& plugin_time);
  Result<PodNetwork> Describe(const Attachment& attachment) const;
  bool IsStale(const Attachment& attachment) const;
  bool NeedsRollBack(const Attachment& attachment) const;
  /// DEL, unpin, forget; with the pod's lock held.
  Status Undo(const CallContext& cc, const Attachment& attachment);
  Status RunDel(const CallContext& cc, const Attachment& attachment) const;
  Status UnpinStrays(const std::set<PodId>& live);

  const Config config_;
  const std::string boot_id_;
  ConfSource& conf_;
  Attachments& store_;
  Metrics& metrics_;
  Clock& clock_;
  const PluginRunner plugins_;
  work::LockTable locks_;
};

}  // namespace crisp::netd
