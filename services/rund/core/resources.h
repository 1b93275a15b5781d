#pragma once

#include <vector>

#include "cri/v1/api.pb.h"
#include "crisp/rund/v1/record.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/status.h"
#include "services/rund/core/parts.h"
#include "services/rund/runtime/cgroup_driver.h"

namespace crisp::rund {

/// Changes what pods and containers may use while they exist (in-place resize). The limits are
/// written to the cgroups by rund itself, not by the runtime's `update`: that makes a change whole
/// or nothing for every field and runtime, and costs no process.
class Resources {
 public:
  explicit Resources(Parts& parts) : p_(parts) {}

  /// CRI v1 UpdateContainerResources, of created and running containers. All or nothing; zero and
  /// empty fields are not meant. ContainerStatus has the result when this returns. Idempotent.
  /// kNotFound; kFailedPrecondition: it has ended, or more memory is in use than the new limit;
  /// kInvalidArgument names the field (no annotation has a meaning here).
  Status UpdateContainer(const CallContext& cc,
                         const runtime::v1::UpdateContainerResourcesRequest& request);

  /// CRI v1 UpdatePodSandboxResources: recorded; set on the pod's cgroup where we made that.
  /// kNotFound; kFailedPrecondition: the pod is not ready, or more memory is in use;
  /// kInvalidArgument.
  Status UpdatePod(const CallContext& cc,
                   const runtime::v1::UpdatePodSandboxResourcesRequest& request);

 private:
  Status Change(const CallContext& cc, const ContainerRecord& container,
                const runtime::v1::LinuxContainerResources& next,
                const std::vector<CgroupSetting>& settings);
  Status Change(const CallContext& cc, const PodRecord& pod,
                const runtime::v1::LinuxPodSandboxConfig& next);
  Status CheckMemory(const std::string& cgroup, std::int64_t limit_bytes) const;

  Parts& p_;
};

/// Puts back what an update has changed that did not end (a crash): limits and oom_score_adj are
/// those of the record again. The caller holds the container's, the pod's lock. Idempotent.
Status UndoUpdate(const CallContext& cc, const Parts& parts, const ContainerId& id);
Status UndoUpdate(const CallContext& cc, const Parts& parts, const PodId& id);

/// kInvalidArgument names a field of an overhead that has no meaning there.
Status CheckOverhead(const runtime::v1::LinuxContainerResources& overhead);
/// What the whole pod may use: its containers' sum and its own overhead.
runtime::v1::LinuxContainerResources ResourcesOf(const runtime::v1::LinuxPodSandboxConfig& pod);
/// Sets them on the pod's cgroup, which must be new and ours. All or nothing.
Status LimitPod(const CallContext& cc, const Parts& parts, const std::string& cgroup,
                const runtime::v1::LinuxPodSandboxConfig& pod);

}  // namespace crisp::rund
