#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "crisp/rund/v1/rund.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "services/rund/core/containers.h"
#include "services/rund/core/parts.h"

namespace crisp::rund {

/// Reserved or prepared, and not started yet.
bool IsHalfMade(const PodRecord& pod);

/// What the front asks of pods (protos/crisp/rund/v1/rund.proto says what each means). Calls block;
/// those that change something go on when their caller leaves.
class Pods {
 public:
  Pods(Parts& parts, Containers& containers, Lifecycle& lifecycle)
      : p_(parts), containers_(containers), lifecycle_(lifecycle) {}

  Result<v1::ReservePodResponse> Reserve(const v1::ReservePodRequest& request);
  Result<v1::PreparePodResponse> Prepare(const CallContext& cc,
                                         const v1::PreparePodRequest& request);
  Result<std::uint64_t> Start(const CallContext& cc, const v1::StartPodRequest& request);
  Result<std::uint64_t> Stop(const CallContext& cc, const PodId& id);
  Result<v1::RemovePodResponse> Remove(const CallContext& cc, const PodId& id) {
    return RemoveIf(cc, id, nullptr);
  }
  /// Only while `still` says so (null = always), asked when nobody else can change the record.
  /// kAborted: it does not.
  Result<v1::RemovePodResponse> RemoveIf(const CallContext& cc, const PodId& id,
                                         const std::function<bool(const PodRecord&)>& still);
  Result<runtime::v1::PodSandboxStatusResponse> GetStatus(const PodId& id, bool verbose) const;

  /// The supervisor's handler: the pod's shared PID namespace is gone, and all in it.
  void OnPauseGone(const PodId& id);
  /// Removes what was reserved, and not started, before the grace period. Runs now and then.
  void RemoveAbandoned(const CallContext& cc);

 private:
  /// The categories of the pod's own; those asked for, else a pair that no other pod has. In a
  /// change of the state.
  Result<std::string> SelinuxLevelOf(const PodId& id,
                                     const runtime::v1::PodSandboxConfig& config) const;
  Result<std::uint64_t> StartLocked(const CallContext& cc, const v1::StartPodRequest& request);
  /// ShmSizeOf, what is not given is logged.
  Result<Bytes> ShmSize(const PodRecord& pod, const runtime::v1::PodSandboxConfig& config) const;
  /// Whether a pod may have a user namespace under its runtime.
  Status CheckUserns(const PodRecord& pod) const;
  /// Of the pod's own; its containers are gone or cleaned. The caller holds the pod's lock.
  Status TakeDown(const CallContext& cc, const PodRecord& pod);
  /// Ends its containers, all at once, and cleans them, side by side: one whose runtime hangs keeps
  /// the others from nothing. The pod is marked as stopping, and its lock
  /// is free: what hangs in one of them must not hold up who asks for the pod.
  Status EndContainers(const CallContext& cc, const PodId& id);
  /// For each of them at the same time: the first error, when all have ended.
  Status ForEach(const CallContext& cc, const std::vector<ContainerId>& containers,
                 const std::function<Status(const ContainerId&)>& task);
  Status PinPids(const PodId& id, const os::ProcessId& pause);
  Result<os::ProcessId> StartPause(const CallContext& cc, const PodRecord& pod);

  Parts& p_;
  Containers& containers_;
  Lifecycle& lifecycle_;
};

}  // namespace crisp::rund
