#pragma once

#include "cri/v1/api.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "services/rund/core/state.h"
#include "services/rund/stats/collector.h"

namespace crisp::rund {

/// The CRI's questions about what pods and containers use. Any thread; may block for the files of
/// cgroups, and for a reading that another call makes. Errors: kNotFound for an unknown id, those
/// of Collector::Take.
class Stats {
 public:
  Stats(const State& state, Collector& collector) : state_(state), collector_(collector) {}

  Result<runtime::v1::ContainerStatsResponse> Container(const CallContext& cc,
                                                        const ContainerId& id);
  Result<runtime::v1::ListContainerStatsResponse> Containers(
      const CallContext& cc, const runtime::v1::ContainerStatsFilter& filter);
  Result<runtime::v1::PodSandboxStatsResponse> Pod(const CallContext& cc, const PodId& id);
  Result<runtime::v1::ListPodSandboxStatsResponse> Pods(
      const CallContext& cc, const runtime::v1::PodSandboxStatsFilter& filter);
  Result<runtime::v1::ListPodSandboxMetricsResponse> Metrics(const CallContext& cc);

 private:
  const State& state_;
  Collector& collector_;
};

}  // namespace crisp::rund
