#include "services/netd/core/attach.h"

#include <optional>
#include <utility>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/namespaces.h"
#include "services/netd/core/leftovers.h"
#include "services/netd/core/netns_pin.h"
#include "services/netd/core/pod_args.h"
#include "services/netd/core/result.h"

namespace crisp::netd {
namespace {

Status CheckId(const PodId& pod) {
  if (IsIdOrPrefix(pod.str())) return Status::Ok();
  return InvalidArgument("pod id '{}': hexadecimal characters are expected", pod.Short());
}

}  // namespace

Networks::Networks(Config config, std::string boot_id, ConfSource& conf, Attachments& store,
                   Metrics& metrics, Clock& clock)
    : config_(std::move(config)),
      boot_id_(std::move(boot_id)),
      conf_(conf),
      store_(store),
      metrics_(metrics),
      clock_(clock),
      plugins_(config_.bin_dirs) {
  if (const Result<std::int64_t> count = store_.Count(); count.ok()) {
    metrics_.AttachmentsAre(static_cast<std::size_t>(*count));
  }
}

bool Networks::IsStale(const Attachment& attachment) const {
  if (attachment.boot_id != boot_id_) return true;
  const Result<bool> pinned = os::IsPinnedNamespace(config_.layout.NetnsPath(attachment.pod));
  return !pinned.ok() || !*pinned;
}

Result<PodNetwork> Networks::Describe(const Attachment& attachment) const {
  const nlohmann::json result = CRISP_TRY(json::Parse(attachment.result));
  PodNetwork network;
  network.netns_path = config_.layout.NetnsPath(attachment.pod);
  network.ips = CRISP_TRY(AddressesOf(result));
  network.cni_result = attachment.result;
  return network;
}

Result<PodNetwork> Networks::Attach(const CallContext& cc, const PodId& pod,
                                    const runtime::v1::PodSandboxConfig& config) {
  CRISP_TRY(CheckId(pod));
  const work::LockTable::Held held = CRISP_TRY(locks_.Lock(cc, pod.str()));
  const SteadyTime start = clock_.Now();
  std::chrono::nanoseconds plugin_time{};
  // A plugin that is cut off in the middle leaves more dirt than one that ends: the caller's
  // leaving does not stop it, and a retry finds what it has done.
  const CallContext own = cc.Detached(config_.attach_timeout);
  Result<PodNetwork> network = AttachNew(own, pod, config, plugin_time);
  metrics_.AttachDone(network.code(), clock_.Now() - start, plugin_time);
  return network;
}

Result<PodNetwork> Networks::AttachNew(const CallContext& cc, const PodId& pod,
                                       const runtime::v1::PodSandboxConfig& config,
                                       std::chrono::nanoseconds& plugin_time) {
  if (const std::optional<Attachment> before = CRISP_TRY(store_.Get(pod))) {
    if (before->phase == Phase::kAttached && !IsStale(*before)) return Describe(*before);
    CRISP_TRY(Undo(cc.Detached(config_.detach_timeout), *before)
                  .While("undo an earlier attachment of pod {}", pod.Short()));
  }

  Attachment attachment{.pod = pod, .boot_id = boot_id_, .instance = config_.instance};
  attachment.cni_args = CRISP_TRY(CniArgsOf(pod, config));
  const nlohmann::json capability_args = CRISP_TRY(CapabilityArgsOf(config));
  attachment.capability_args = json::Dump(capability_args);
  const std::shared_ptr<const ConfList> list = CRISP_TRY(conf_.Wait(cc, config_.conf_patience));
  CRISP_TRY(plugins_.CheckPrograms(*list));
  attachment.network = list->name;
  attachment.conf = list->ToJson();
  attachment.created = clock_.Wall();

  CRISP_TRY(store_.Put(attachment));
  metrics_.AttachmentRecorded();
  Cleanup undo([this, &cc, &attachment] {
    const Status undone = Undo(cc.Detached(config_.detach_timeout), attachment);
    log::IfError("undo a failed attachment", undone);
  });
  const std::string netns = config_.layout.NetnsPath(pod);
  os::NamespacePin pin = CRISP_TRY(PinNetns(netns, NetSysctlsOf(config)));
  pin.Commit();  // the record owns it: Undo unpins, after DEL

  const SteadyTime start = clock_.Now();
  const Result<nlohmann::json> result = plugins_.Add(cc, *list,
                                                     {.container_id = pod.str(),
                                                      .netns = netns,
                                                      .cni_args = attachment.cni_args,
                                                      .capability_args = capability_args});
  plugin_time = clock_.Now() - start;
  if (!result.ok()) return result.status();
  attachment.result = json::Dump(*result);
  PodNetwork network = CRISP_TRY(Describe(attachment).While("network '{}'", list->name));
  CRISP_TRY(store_.SetAttached(pod, attachment.result));
  undo.Dismiss();
  log::Info("pod attached", {{"pod", pod},
                             {"network", list->name},
                             {"ip", network.ips.empty() ? "" : network.ips[0]},
                             {"request", cc.request_id()}});
  return network;
}

Status Networks::Detach(const CallContext& cc, const PodId& pod) {
  CRISP_TRY(CheckId(pod));
  const work::LockTable::Held held = CRISP_TRY(locks_.Lock(cc, pod.str()));
  const std::optional<Attachment> attachment = CRISP_TRY(store_.Get(pod));
  if (!attachment) return os::UnpinNamespace(config_.layout.NetnsPath(pod));
  return Undo(cc.Detached(config_.detach_timeout), *attachment);
}

Status Networks::Undo(const CallContext& cc, const Attachment& attachment) {
  const SteadyTime start = clock_.Now();
  if (attachment.phase != Phase::kAttached) CRISP_TRY(EndLeftovers(cc, attachment.pod));
  if (attachment.phase != Phase::kDetaching || attachment.instance != config_.instance) {
    CRISP_TRY(store_.SetPhase(attachment.pod, Phase::kDetaching, config_.instance));
  }
  const Status deleted = RunDel(cc, attachment);
  metrics_.DetachDone(deleted.code(), clock_.Now() - start);
  // Of an ADD that never ended well nothing is in the namespace that anybody uses: it goes, with
  // the interfaces in it, even when DEL fails. The record stays for what DEL has to free elsewhere.
  const bool was_attached = !attachment.result.empty();
  if (deleted.ok() || !was_attached) {
    CRISP_TRY(os::UnpinNamespace(config_.layout.NetnsPath(attachment.pod)));
  }
  CRISP_TRY(deleted);
  CRISP_TRY(store_.Remove(attachment.pod));
  metrics_.AttachmentForgotten();
  log::Info(
      "pod detached",
      {{"pod", attachment.pod}, {"network", attachment.network}, {"request", cc.request_id()}});
  return Status::Ok();
}

Status Networks::RunDel(const CallContext& cc, const Attachment& attachment) const {
  const ConfList list = CRISP_TRY(ParseConfList(attachment.conf, ""));
  PluginArgs args{.container_id = attachment.pod.str(), .cni_args = attachment.cni_args};
  args.capability_args = CRISP_TRY(json::Parse(attachment.capability_args));
  if (!IsStale(attachment)) args.netns = config_.layout.NetnsPath(attachment.pod);
  std::optional<nlohmann::json> result;
  if (!attachment.result.empty()) result = CRISP_TRY(json::Parse(attachment.result));
  return plugins_.Del(cc, list, args, result);
}

Result<std::string> Networks::Ready() {
  const std::shared_ptr<const ConfList> list = CRISP_TRY(conf_.Current());
  CRISP_TRY(plugins_.CheckPrograms(*list).While("network '{}'", list->name));
  return list->name;
}

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
    if (!wants_undo(seen)) continue;
    CRISP_TRY(cc.Check());
    const Result<work::LockTable::Held> held = locks_.TryLock(seen.pod.str());
    if (!held.ok()) continue;  // somebody is at it
    const std::optional<Attachment> attachment = CRISP_TRY(store_.Get(seen.pod));
    if (!attachment || !wants_undo(*attachment)) continue;
    const Status undone = Undo(cc.Detached(config_.detach_timeout), *attachment);
    if (!undone.ok()) {
      log::Warn("detaching failed, it will be tried again", {{"pod", seen.pod}, {"error", undone}});
      continue;
    }
    if (!live.contains(seen.pod)) metrics_.OrphanFreed();
    freed.push_back(seen.pod);
  }
  log::IfError("unpin namespaces without a record", UnpinStrays(live));
  return freed;
}

Status Networks::UnpinStrays(const std::set<PodId>& live) {
  for (const std::string& name : CRISP_TRY(os::ListDir(config_.layout.NetnsDir()))) {
    const PodId pod(name);
    if (!IsIdOrPrefix(name) || live.contains(pod)) continue;
    const Result<work::LockTable::Held> held = locks_.TryLock(name);
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

Result<std::vector<PodId>> Networks::Unfinished() {
  std::vector<PodId> pods;
  for (const Attachment& attachment : CRISP_TRY(store_.List())) {
    if (NeedsRollBack(attachment)) pods.push_back(attachment.pod);
  }
  return pods;
}

Status Networks::RollBack(const CallContext& cc, const PodId& pod) {
  const work::LockTable::Held held = CRISP_TRY(locks_.Lock(cc, pod.str()));
  const std::optional<Attachment> attachment = CRISP_TRY(store_.Get(pod));
  // An Attach or Detach that came first has dealt with it.
  if (!attachment || !NeedsRollBack(*attachment)) return Status::Ok();
  CRISP_TRY(Undo(cc, *attachment).While("roll back pod {}", pod.Short()));
  metrics_.RolledBack();
  return Status::Ok();
}

}  // namespace crisp::netd
