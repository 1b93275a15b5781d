#include "services/crid/core/pod_flow.h"

#include <algorithm>
#include <utility>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/work/operations.h"
#include "services/crid/core/validate.h"

namespace crisp::crid {
namespace {

bool HostNetwork(const runtime::v1::PodSandboxConfig& config) {
  return config.linux().security_context().namespace_options().network() ==
         runtime::v1::NamespaceMode::NODE;
}

bool HasUserns(const runtime::v1::PodSandboxConfig& config) {
  const auto& options = config.linux().security_context().namespace_options();
  return options.has_userns_options() &&
         options.userns_options().mode() != runtime::v1::NamespaceMode::NODE;
}

std::string Named(const runtime::v1::PodSandboxMetadata& metadata) {
  return fmt::format("{}/{}", metadata.namespace_(), metadata.name());
}

netd::v1::AttachRequest AttachOf(const std::string& pod_id,
                                 const runtime::v1::PodSandboxConfig& config) {
  netd::v1::AttachRequest request;
  request.set_pod_id(pod_id);
  *request.mutable_config() = config;
  return request;
}

netd::v1::DetachRequest DetachOf(const std::string& pod_id) {
  netd::v1::DetachRequest request;
  request.set_pod_id(pod_id);
  return request;
}

template <typename T>
Status StatusOf(Result<T> result) {
  return std::move(result).status();
}

}  // namespace

PodFlow::PodFlow(View& view, Backends& backends, work::Pool& pool, IdSource& ids, Metrics& metrics,
                 const FlowOptions& options)
    : view_(view),
      backends_(backends),
      ids_(ids),
      metrics_(metrics),
      options_(options),
      runs_(pool, options.run_pod_timeout, work::Lane::kSlowFlight),
      ends_(pool, options.end_timeout, work::Lane::kEndFlight) {}

Result<std::string> PodFlow::Run(const CallContext& cc,
                                 const runtime::v1::RunPodSandboxRequest& request) {
  CRISP_TRY(Validate(request));
  return runs_.Do(cc, PodKey(request.config().metadata()), [this, request](const CallContext& own) {
    FlowTimer timer(metrics_, "run_pod");
    return timer.Done(RunNow(own, request));
  });
}

Result<std::shared_ptr<Rund>> PodFlow::Choose(const CallContext& cc, const std::string& key) {
  // A pod with this key may be with an instance that is away: all must be seen.
  CRISP_TRY(view_.WaitFresh(cc));
  if (RecordPtr known = view_.FindKey(Kind::kPod, key)) {
    if (auto rund = backends_.RundOf(known->instance)) return rund;
  }
  std::vector<View::InstanceInfo> instances = view_.Instances();
  std::sort(instances.begin(), instances.end(),
            [](const auto& a, const auto& b) { return a.pods < b.pods; });
  for (const auto& instance : instances) {
    if (!instance.fresh) continue;
    if (auto rund = backends_.RundOf(instance.name)) return rund;
  }
  return Unavailable("rund/1 is not running");
}

Result<std::string> PodFlow::RunNow(const CallContext& cc,
                                    const runtime::v1::RunPodSandboxRequest& request) {
  const auto& metadata = request.config().metadata();
  const std::shared_ptr<Rund> rund = CRISP_TRY(Choose(cc, PodKey(metadata)));

  rund::v1::ReservePodRequest reserve;
  reserve.set_pod_id(ids_.Next());
  *reserve.mutable_metadata() = metadata;
  reserve.set_runtime_handler(request.runtime_handler());
  // A pod that nobody knows gets the id that is asked for: its network begins beside its
  // reservation. If we are killed in between, netd has an orphan, which the reconcile frees.
  Attaching attaching;
  if (!HostNetwork(request.config()) && !HasUserns(request.config()) && backends_.netd().Ready() &&
      !view_.FindKey(Kind::kPod, PodKey(metadata))) {
    attaching = backends_.netd().StartAttach(cc, AttachOf(reserve.pod_id(), request.config()));
  }
  const auto reservation = rund->ReservePod(cc, reserve);
  if (attaching && (!reservation.ok() || reservation->pod_id() != reserve.pod_id())) {
    static_cast<void>(attaching());  // what is under way cannot be undone
    attaching = nullptr;
    UndoNetwork(cc.Detached(options_.end_timeout), reserve.pod_id());
  }
  const auto reserved = CRISP_TRY(reservation);
  const std::string& id = reserved.pod_id();
  work::AddSubject(cc, id);
  switch (reserved.phase()) {
    case rund::v1::LIVE: view_.WaitSeq(cc, rund->instance(), reserved.seq()); return id;
    case rund::v1::STOPPED:
      return AlreadyExists(
          "pod {} (attempt {}) exists already, stopped, as {}: remove it or use another attempt",
          Named(metadata), metadata.attempt(), id.substr(0, 12));
    case rund::v1::REMOVING:
      return Aborted("pod {} (attempt {}) is being removed: try again", Named(metadata),
                     metadata.attempt());
    default: break;
  }
  Status built = Build(cc, *rund, id, request, std::move(attaching));
  if (!built.ok()) {
    log::Warn("pod failed", {{"pod", id}, {"name", Named(metadata)}, {"error", built}});
    // Not when it is we who are being stopped: the next front may be at it already.
    if (!cc.stop().stop_requested()) {
      static_cast<void>(Undo(cc, *rund, id, HostNetwork(request.config())).ok());
    }
    return std::move(built).While("pod {}", Named(metadata));
  }
  log::Info("pod runs", {{"pod", id}, {"name", Named(metadata)}, {"rund", rund->instance()}});
  return id;
}

Status PodFlow::Build(const CallContext& cc, Rund& rund, const std::string& id,
                      const runtime::v1::RunPodSandboxRequest& request, Attaching attaching) {
  rund::v1::PreparePodRequest prepare;
  prepare.set_pod_id(id);
  *prepare.mutable_config() = request.config();
  const bool network = !HostNetwork(request.config());
  Result<rund::v1::PreparePodResponse> prepared = rund::v1::PreparePodResponse();
  if (HasUserns(request.config())) {
    // The network namespace is made inside of the user namespace: one after the other.
    prepared = CRISP_TRY(rund.PreparePod(cc, prepare));
    netd::v1::AttachRequest attach = AttachOf(id, request.config());
    attach.set_userns_path(prepared->userns_path());
    if (network) attaching = backends_.netd().StartAttach(cc, std::move(attach));
  } else {
    if (network && !attaching) {
      attaching = backends_.netd().StartAttach(cc, AttachOf(id, request.config()));
    }
    prepared = rund.PreparePod(cc, prepare);
  }

  rund::v1::StartPodRequest start;
  start.set_pod_id(id);
  if (attaching) {
    // Waited for even when the preparation failed: what is under way cannot be undone.
    auto attached = attaching();
    if (prepared.ok()) {
      auto answer = CRISP_TRY(std::move(attached).While("network"));
      start.set_netns_path(std::move(*answer.mutable_netns_path()));
      *start.mutable_ips() = std::move(*answer.mutable_ips());
      start.set_cni_result(std::move(*answer.mutable_cni_result()));
    }
  }
  CRISP_TRY(StatusOf(std::move(prepared)));
  const auto started = CRISP_TRY(rund.StartPod(cc, start));
  view_.WaitSeq(cc, rund.instance(), started.seq());
  return Status::Ok();
}

Status PodFlow::Undo(const CallContext& cc, Rund& rund, const std::string& id, bool host_network) {
  const CallContext undo = cc.Detached(options_.end_timeout);
  // rund has the word: what we know of it may be old, and a pod that runs by now stays.
  rund::v1::RemovePodRequest remove;
  remove.set_pod_id(id);
  remove.set_if_half_made(true);
  Status removed = StatusOf(rund.RemovePod(undo, remove));
  if (removed.ok()) {
    if (!host_network) UndoNetwork(undo, id);
  } else if (removed.code() != Code::kAborted) {
    metrics_.LeftBehind();
    log::IfError("undo the pod", removed);
  }
  return removed;
}

void PodFlow::UndoAbandoned(const CallContext& cc) {
  for (const RecordPtr& pod : view_.HalfMadePods()) {
    if (runs_.Has(pod->key)) continue;
    // As a flight of the pod's: a call that comes meanwhile does not work against it.
    static_cast<void>(runs_.Do(
        cc, pod->key, [this, pod](const CallContext& own) { return UndoHalfMade(own, *pod); }));
  }
}

Result<std::string> PodFlow::UndoHalfMade(const CallContext& cc, const Record& pod) {
  const RecordPtr now = view_.FindKey(Kind::kPod, pod.key);
  if (now == nullptr || now->id != pod.id || !now->half_made) {
    return Aborted("the pod was half made a moment ago: try again");
  }
  const std::shared_ptr<Rund> rund = backends_.RundOf(pod.instance);
  if (rund == nullptr) return Unavailable("rund/{} is away", pod.instance);
  Status undone = Undo(cc, *rund, pod.id, pod.host_network);
  if (undone.code() == Code::kAborted) return pod.id;
  CRISP_TRY(std::move(undone));
  log::Warn("half-made pod undone: who asked for it did not come back", {{"pod", pod.id}});
  return Aborted("the pod was half made, and has been undone: try again");
}

void PodFlow::UndoNetwork(const CallContext& cc, const std::string& id) {
  // The caller has waited for a netd that is away; the reconcile tells it what it holds for
  // nobody.
  Status detached = backends_.netd().Ready()
                        ? StatusOf(backends_.netd().StartDetach(cc, DetachOf(id))())
                        : Unavailable("netd is away: it is told later");
  if (!detached.ok()) metrics_.LeftBehind();
  log::IfError("undo the pod's network", detached);
}

Result<RecordPtr> PodFlow::FindForEnd(const CallContext& cc, const std::string& id) {
  auto found = view_.Resolve(cc, Kind::kPod, id, /*hidden=*/id.size() == 64);
  if (found.code() == Code::kNotFound) return RecordPtr(nullptr);
  return found;
}

Status PodFlow::Stop(const CallContext& cc, const std::string& id) {
  const RecordPtr pod = CRISP_TRY(FindForEnd(cc, id));
  if (pod == nullptr || !pod->listed) return Status::Ok();
  return StatusOf(
      ends_.Do(cc, "stop " + pod->id, [this, pod](const CallContext& own) -> Result<Nothing> {
        FlowTimer timer(metrics_, "stop_pod");
        const std::shared_ptr<Rund> rund = backends_.RundOf(pod->instance);
        if (rund == nullptr) return Unavailable("rund/{} is away", pod->instance);
        Status down = timer.Done(Down(own, *rund, *pod));
        if (!down.ok()) return down;
        if (pod->state == runtime::v1::SANDBOX_READY) log::Info("pod stopped", {{"pod", pod->id}});
        return Nothing{};
      }));
}

Status PodFlow::Down(const CallContext& cc, Rund& rund, const Record& pod) {
  Pending<netd::v1::DetachResponse> detaching;
  if (!pod.host_network) detaching = backends_.netd().StartDetach(cc, DetachOf(pod.id));
  rund::v1::StopPodRequest stop;
  stop.set_pod_id(pod.id);
  const auto stopped = rund.StopPod(cc, stop);
  Status detached;
  if (detaching) detached = StatusOf(detaching()).While("network");
  if (!stopped.ok()) return stopped.status();
  view_.WaitSeq(cc, rund.instance(), stopped->seq());
  return detached;
}

Status PodFlow::Remove(const CallContext& cc, const std::string& id) {
  const RecordPtr pod = CRISP_TRY(FindForEnd(cc, id));
  if (pod == nullptr) return Status::Ok();
  return StatusOf(
      ends_.Do(cc, "remove " + pod->id, [this, pod](const CallContext& own) -> Result<Nothing> {
        FlowTimer timer(metrics_, "remove_pod");
        Status removed = timer.Done(RemoveNow(own, *pod));
        if (!removed.ok()) return removed;
        log::Info("pod removed", {{"pod", pod->id}});
        return Nothing{};
      }));
}

Status PodFlow::RemoveNow(const CallContext& cc, const Record& pod) {
  const std::shared_ptr<Rund> rund = backends_.RundOf(pod.instance);
  if (rund == nullptr) return Unavailable("rund/{} is away", pod.instance);
  CRISP_TRY(Down(cc, *rund, pod));
  rund::v1::RemovePodRequest remove;
  remove.set_pod_id(pod.id);
  const auto removed = CRISP_TRY(rund->RemovePod(cc, remove));
  for (const std::string& container : removed.container_ids()) {
    ReleaseSnapshot(cc, backends_.imaged(), metrics_, container);
  }
  view_.WaitSeq(cc, rund->instance(), removed.seq());
  return Status::Ok();
}

void ReleaseSnapshot(const CallContext& cc, Imaged& imaged, Metrics& metrics,
                     const std::string& container_id) {
  // One that hangs must not hold up what only takes things down; the reconcile repeats it.
  constexpr std::chrono::seconds kRelease{10};
  if (!imaged.Ready()) {
    log::Warn("imaged is away: the reconcile gives the snapshot back",
              {{"container", container_id}});
    metrics.LeftBehind();
    return;
  }
  imaged::v1::ReleaseRequest release;
  release.set_owner_id(container_id);
  Status released = StatusOf(imaged.Release(cc.Within(kRelease), release));
  if (!released.ok()) metrics.LeftBehind();
  log::IfError("give the container's snapshot back", released);
}

}  // namespace crisp::crid
