#include "services/netd/core/attach.h"

#include <charconv>
#include <cstdint>
#include <optional>
#include <thread>
#include <utility>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/namespaces.h"
#include "libs/work/operations.h"
#include "services/netd/core/host_local.h"
#include "services/netd/core/leftovers.h"
#include "services/netd/core/lock_wait.h"
#include "services/netd/core/netns_pin.h"
#include "services/netd/core/pod_args.h"
#include "services/netd/core/result.h"

namespace crisp::netd {
namespace {

Status CheckId(const PodId& pod) {
  if (IsIdOrPrefix(pod.str())) return Status::Ok();
  return InvalidArgument("pod id '{}': hexadecimal characters are expected", pod.Short());
}

/// The pod's among the locks of Layout::PodsLock: as many digits of its id as fit.
std::uint64_t LockNumber(const PodId& pod) {
  constexpr std::size_t kDigits = 15;
  constexpr int kHex = 16;
  const std::string digits = pod.str().substr(0, kDigits);
  std::uint64_t number = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), number, kHex);
  return number;
}

}  // namespace

/// The pod's plugins that still run. After an ADD that ended well those of a DEL: what else has the
/// pod's id in its environment an ADD has started to stay, and DEL ends it. Nothing of it began
/// before the record was made.
Status Networks::EndPlugins(const CallContext& cc, const Attachment& attachment) {
  // Those of our own life were killed at their deadline; of an earlier one they may be at work.
  constexpr std::chrono::seconds kGrace(1);
  const bool inherited = inherited_.lock()->erase(attachment.pod) > 0;
  std::vector<std::string> variables = {"CNI_CONTAINERID=" + attachment.pod.str()};
  if (!attachment.result.empty()) variables.emplace_back("CNI_COMMAND=DEL");
  return EndLeftovers(cc, variables, attachment.since_boot,
                      inherited ? kGrace : std::chrono::seconds(0));
}

Networks::Networks(Config config, std::string boot_id, Readiness& readiness,
                   const PluginRunner& plugins, Attachments& store, Metrics& metrics, Clock& clock)
    : config_(std::move(config)),
      boot_id_(std::move(boot_id)),
      readiness_(readiness),
      plugins_(plugins),
      store_(store),
      metrics_(metrics),
      clock_(clock),
      cache_(config_.cache_dir),
      ports_(config_.nft, config_.layout, boot_id_, store_),
      retries_(clock_) {
  if (const Result<std::int64_t> count = store_.Count(); count.ok()) {
    metrics_.AttachmentsAre(static_cast<std::size_t>(*count));
  }
}

bool Networks::IsPinned(const PodId& pod) const {
  const Result<bool> pinned = os::IsPinnedNamespace(config_.layout.NetnsPath(pod));
  return pinned.ok() && *pinned;
}

bool Networks::IsStale(const Attachment& attachment) const {
  return attachment.boot_id != boot_id_ || !IsPinned(attachment.pod);
}

Result<PodNetwork> Networks::Describe(const Attachment& attachment) const {
  const nlohmann::json result = CRISP_TRY(json::Parse(attachment.result));
  PodNetwork network;
  network.netns_path = config_.layout.NetnsPath(attachment.pod);
  network.ips = CRISP_TRY(AddressesOf(result));
  network.cni_result = attachment.result;
  return network;
}

Result<PluginArgs> Networks::ArgsOf(const Attachment& attachment) const {
  PluginArgs args{.container_id = attachment.pod.str(), .cni_args = attachment.cni_args};
  args.capability_args = CRISP_TRY(json::Parse(attachment.capability_args));
  if (!IsStale(attachment)) args.netns = config_.layout.NetnsPath(attachment.pod);
  return args;
}

Result<Networks::Held> Networks::TryLockPod(const PodId& pod) {
  work::LockTable::Held here = CRISP_TRY(locks_.TryLock(pod.str()));
  os::FileLock everywhere =
      CRISP_TRY(os::FileLock::TryLockAt(config_.layout.PodsLock(), LockNumber(pod)));
  return Held{std::move(here), std::move(everywhere)};
}

Result<Networks::Held> Networks::LockPod(const CallContext& cc, const PodId& pod) {
  work::LockTable::Held here = CRISP_TRY(locks_.Lock(cc, pod.str()));
  Result<os::FileLock> everywhere = WaitForLock(cc, "another instance of netd", [this, &pod] {
    return os::FileLock::TryLockAt(config_.layout.PodsLock(), LockNumber(pod));
  });
  if (everywhere.ok()) return Held{std::move(here), *std::move(everywhere)};
  // Not kUnavailable, which is a missing network's.
  CRISP_TRY(cc.Check().While("another instance works on pod {}", pod.Short()));
  return everywhere.status();
}

Result<PodNetwork> Networks::Attach(const CallContext& cc, const PodId& pod,
                                    const runtime::v1::PodSandboxConfig& config,
                                    const std::string& userns_path,
                                    const std::function<void(const PodNetwork&)>& answer) {
  CRISP_TRY(CheckId(pod));
  const Held held = CRISP_TRY(LockPod(cc, pod));
  const SteadyTime start = clock_.Now();
  std::chrono::nanoseconds plugin_time{};
  // A plugin that is cut off in the middle leaves more dirt than one that ends: the caller's
  // leaving does not stop it, and a retry finds what it has done.
  const CallContext own = cc.Detached(config_.attach_timeout);
  Result<Attached> attached = AttachLocked(own, pod, config, userns_path, plugin_time);
  metrics_.AttachDone(attached.code(), clock_.Now() - start, plugin_time);
  if (!attached.ok()) return attached.status();
  if (answer) answer(attached->network);
  // With the pod's lock still held. A kill before it is made good by Recover.
  CacheResult(attached->attachment);
  if (attached->is_new) {
    const std::vector<std::string>& ips = attached->network.ips;
    log::Info("pod attached", {{"pod", pod},
                               {"network", attached->attachment.network},
                               {"ip", ips.empty() ? "" : ips[0]},
                               {"request", cc.request_id()}});
  }
  return std::move(attached->network);
}

Result<Networks::Attached> Networks::AttachLocked(const CallContext& cc, const PodId& pod,
                                                  const runtime::v1::PodSandboxConfig& config,
                                                  const std::string& userns_path,
                                                  std::chrono::nanoseconds& plugin_time) {
  if (std::optional<Attachment> before = CRISP_TRY(store_.Get(pod))) {
    if (before->phase == Phase::kAttached && !IsStale(*before)) {
      CRISP_TRY(OpenPorts(cc, *before));
      PodNetwork network = CRISP_TRY(Describe(*before));
      return Attached{*std::move(before), std::move(network)};
    }
    CRISP_TRY(Undo(cc.Detached(config_.detach_timeout), *before)
                  .While("undo an earlier attachment of pod {}", pod.Short()));
  }
  Attached attached = CRISP_TRY(AttachNew(cc, pod, config, userns_path, plugin_time));
  CRISP_TRY(OpenPorts(cc, attached.attachment));
  return attached;
}

Result<std::shared_ptr<const ConfList>> Networks::WaitForNetwork(const CallContext& cc) {
  const work::Stage stage(cc, "wait for a network that is ready");
  return readiness_.Wait(cc, config_.network_wait);
}

Result<Networks::Attached> Networks::AttachNew(const CallContext& cc, const PodId& pod,
                                               const runtime::v1::PodSandboxConfig& config,
                                               const std::string& userns_path,
                                               std::chrono::nanoseconds& plugin_time) {
  const std::string netns = config_.layout.NetnsPath(pod);
  PluginArgs args{.container_id = pod.str(), .netns = netns};
  args.cni_args = CRISP_TRY(CniArgsOf(pod, config));
  args.capability_args = CRISP_TRY(CapabilityArgsOf(config));
  if (config_.builtin_hostports && args.capability_args.contains("portMappings")) {
    args.capability_args[std::string(kBuiltinPorts)] =
        std::move(args.capability_args["portMappings"]);
    args.capability_args.erase("portMappings");
    // Before anything is taken that could then not be given back: without nft there is no DEL
    // either.
    CRISP_TRY(ports_.CheckUsable(cc));
  }
  const std::shared_ptr<const ConfList> list = CRISP_TRY(WaitForNetwork(cc));
  Attachment attachment{.pod = pod,
                        .boot_id = boot_id_,
                        .instance = config_.instance,
                        .network = list->name,
                        .conf = list->ToJson(),
                        .cni_args = args.cni_args,
                        .capability_args = json::Dump(args.capability_args),
                        .created = clock_.Wall(),
                        .since_boot = SinceBoot()};

  os::FileLock no_gc = CRISP_TRY(KeepGcAway(cc));
  CRISP_TRY(store_.Put(attachment));
  metrics_.AttachmentRecorded();
  Cleanup undo([this, &cc, &attachment, &no_gc] {
    no_gc.Unlock();  // a GC that waits for it goes before the DEL, which waits for that
    const Status undone = Undo(cc.Detached(config_.detach_timeout), attachment);
    log::IfError("undo a failed attachment", undone);
  });
  std::vector<std::string> ips =
      CRISP_TRY(Add(cc, *list, config, userns_path, std::move(args), attachment, plugin_time));
  CRISP_TRY(store_.SetAttached(pod, config_.instance, attachment.result));
  attachment.phase = Phase::kAttached;
  undo.Dismiss();
  PodNetwork network{.netns_path = netns, .ips = std::move(ips), .cni_result = attachment.result};
  return Attached{std::move(attachment), std::move(network), true};
}

Result<std::vector<std::string>> Networks::Add(const CallContext& cc, const ConfList& list,
                                               const runtime::v1::PodSandboxConfig& config,
                                               const std::string& userns_path, PluginArgs args,
                                               Attachment& attachment,
                                               std::chrono::nanoseconds& plugin_time) {
  const NetSysctls sysctls = NetSysctlsOf(config, config_.sysctls);
  // The namespace needs no intent on disk, the plugins do.
  const Cleanup one_less([this] { --adding_; });
  PluginRunner::Started started;
  // Beside more than that the processors are short, and programs that wait only take memory.
  if (++adding_ <= std::thread::hardware_concurrency()) {
    started = plugins_.StartAhead(cc, list, args);
  }
  Status synced;
  const auto sync = [this, &cc, &synced] { synced = store_.Sync(cc); };
  os::NamespacePin pin = CRISP_TRY([&] {
    const work::Stage stage(cc, "make the network namespace");
    return PinNetns(args.netns, userns_path, sysctls.early, sync);
  }());
  CRISP_TRY(synced);
  pin.Commit();  // the record owns it: Undo unpins, after DEL

  const SteadyTime start = clock_.Now();
  const auto on_step = [this, &attachment](const nlohmann::json& partial) {
    attachment.partial = json::Dump(partial);
    return store_.SetPartial(attachment.pod, attachment.partial);
  };
  const Result<nlohmann::json> result = plugins_.Add(cc, list, args, on_step, std::move(started));
  plugin_time = clock_.Now() - start;
  if (!result.ok()) return result.status();
  attachment.result = json::Dump(*result);
  if (!sysctls.late.empty()) {
    const auto write = [&sysctls]() -> Status {
      for (const auto& [name, value] : sysctls.late) CRISP_TRY(os::WriteSysctl(name, value));
      return Status::Ok();
    };
    CRISP_TRY(os::RunInNamespace(args.netns, write));
  }
  Result<std::vector<std::string>> ips = AddressesOf(*result);
  if (!ips.ok()) return ips.status().While("network '{}'", list.name);
  return ips;
}

Status Networks::OpenPorts(const CallContext& cc, const Attachment& attachment) {
  Status opened = ports_.Open(cc, attachment);
  if (opened.ok()) return opened;
  const Status undone = Undo(cc.Detached(config_.detach_timeout), attachment);
  log::IfError("undo a failed attachment", undone);
  return std::move(opened).While("pod {}", attachment.pod.Short());
}

void Networks::CacheResult(const Attachment& attachment) const {
  log::IfError("cache a network result",
               cache_.Put(attachment, config_.layout.NetnsPath(attachment.pod)));
}

Status Networks::Detach(const CallContext& cc, const PodId& pod) {
  CRISP_TRY(CheckId(pod));
  const Held held = CRISP_TRY(LockPod(cc, pod));
  const std::optional<Attachment> attachment = CRISP_TRY(store_.Get(pod));
  if (!attachment) return os::UnpinNamespace(config_.layout.NetnsPath(pod));
  const Status undone = Undo(cc.Detached(config_.detach_timeout), *attachment);
  if (undone.ok() || IsPinned(pod)) return undone;
  log::Warn("the pod's namespace is gone, its network is owed a DEL",
            {{"pod", pod}, {"error", undone}});
  return Status::Ok();
}

Result<bool> Networks::Check(const CallContext& cc, const PodId& pod) {
  CRISP_TRY(CheckId(pod));
  const Held held = CRISP_TRY(LockPod(cc, pod));
  const std::optional<Attachment> attachment = CRISP_TRY(store_.Get(pod));
  if (!attachment || attachment->phase != Phase::kAttached) {
    return NotFound("pod {} is not attached", pod.Short());
  }
  if (IsStale(*attachment)) return FailedPrecondition("the namespace of the pod is gone");
  const ConfList list = CRISP_TRY(ParseConfList(attachment->conf, ""));
  if (!PluginRunner::CanCheck(list)) return false;
  const nlohmann::json result = CRISP_TRY(json::Parse(attachment->result));
  const PluginArgs args = CRISP_TRY(ArgsOf(*attachment));
  CRISP_TRY(plugins_.Check(cc.Within(config_.attach_timeout), list, args, result));
  return true;
}

Status Networks::Undo(const CallContext& cc, const Attachment& attachment) {
  const SteadyTime start = clock_.Now();
  Status undone = UndoNow(cc, attachment);
  metrics_.DetachDone(undone.code(), clock_.Now() - start);
  if (!undone.ok()) {
    retries_.Failed(attachment.pod, undone);
    return undone;
  }
  retries_.Done(attachment.pod);
  metrics_.AttachmentForgotten();
  log::Info(
      "pod detached",
      {{"pod", attachment.pod}, {"network", attachment.network}, {"request", cc.request_id()}});
  return undone;
}

Status Networks::UndoNow(const CallContext& cc, const Attachment& attachment) {
  const work::Stage stage(cc, "undo the attachment");
  // No process outlives a reboot.
  const bool may_run = attachment.phase != Phase::kAttached && attachment.boot_id == boot_id_;
  if (may_run) CRISP_TRY(EndPlugins(cc, attachment));
  if (attachment.phase != Phase::kDetaching || attachment.instance != config_.instance) {
    CRISP_TRY(store_.SetPhase(attachment.pod, Phase::kDetaching, config_.instance));
  }
  // No rule outlives a reboot.
  const bool has_rules = attachment.boot_id == boot_id_;
  if (Status closed = has_rules ? ports_.Close(cc, attachment) : Status::Ok(); !closed.ok()) {
    // No DEL: with the rules still there the address must not become another pod's. This one need
    // not wait for that.
    CRISP_TRY(os::UnpinNamespace(config_.layout.NetnsPath(attachment.pod)));
    return std::move(closed).While("close the host ports");
  }
  const Status deleted = RunDel(cc, attachment);
  // Of an ADD that never ended well nothing is in the namespace that anybody uses: it goes, with
  // the interfaces in it, even when DEL fails. So it does when there is no plugin to ask. The
  // record stays for what DEL has to free elsewhere.
  const bool was_attached = attachment.phase != Phase::kAttaching && !attachment.result.empty();
  if (deleted.ok() || deleted.code() == Code::kUnavailable || !was_attached) {
    CRISP_TRY(os::UnpinNamespace(config_.layout.NetnsPath(attachment.pod)));
  }
  CRISP_TRY(deleted);
  // What DEL cannot know: an ADD that was cut off, or the power with it, may have left addresses.
  if (!was_attached || attachment.boot_id != boot_id_) {
    log::IfError("free addresses that are nobody's",
                 FreeNobodys(cc, CRISP_TRY(ParseConfList(attachment.conf, ""))).status());
  }
  CRISP_TRY(cache_.Remove(attachment));
  return store_.Remove(attachment.pod);
}

Status Networks::RunDel(const CallContext& cc, const Attachment& attachment) const {
  const ConfList list = CRISP_TRY(ParseConfList(attachment.conf, ""));
  const PluginArgs args = CRISP_TRY(ArgsOf(attachment));
  std::optional<nlohmann::json> result;
  const std::string& known = attachment.result.empty() ? attachment.partial : attachment.result;
  if (!known.empty()) result = CRISP_TRY(json::Parse(known));
  const os::FileLock no_gc = CRISP_TRY(KeepGcAway(cc));
  return plugins_.Del(cc, list, args, result);
}

}  // namespace crisp::netd
