#include "services/rund/stats/stats.h"

#include "libs/base/try.h"
#include "services/rund/core/status.h"
#include "services/rund/stats/cri_stats.h"
#include "services/rund/stats/metric_families.h"

namespace crisp::rund {

namespace cri = runtime::v1;

Result<cri::ContainerStatsResponse> Stats::Container(const CallContext& cc, const ContainerId& id) {
  const ContainerRef container = state_.FindContainer(id);
  if (!container || !IsListed(*container)) return NotFound("no container {}", id);
  cri::ContainerStatsResponse response;
  const SweepRef sweep = CRISP_TRY(collector_.Take(cc, Depth::kContainers));
  for (const ContainerSample& sample : sweep->containers) {
    if (sample.record->id() != id.str()) continue;
    *response.mutable_stats() = StatsOf(*sweep, sample);
    return response;
  }
  *response.mutable_stats() =
      StatsOfEnded(*container, collector_.DiskOf(*container), sweep->file_system.mountpoint);
  return response;
}

Result<cri::ListContainerStatsResponse> Stats::Containers(const CallContext& cc,
                                                          const cri::ContainerStatsFilter& filter) {
  const SweepRef sweep = CRISP_TRY(collector_.Take(cc, Depth::kContainers));
  cri::ListContainerStatsResponse response;
  for (const ContainerSample& sample : sweep->containers) {
    if (Matches(filter, *sample.record)) *response.add_stats() = StatsOf(*sweep, sample);
  }
  return response;
}

Result<cri::PodSandboxStatsResponse> Stats::Pod(const CallContext& cc, const PodId& id) {
  const PodRef pod = state_.FindPod(id);
  if (!pod || !IsListed(*pod)) return NotFound("no pod sandbox {}", id);
  cri::PodSandboxStatsResponse response;
  const SweepRef sweep = CRISP_TRY(collector_.Take(cc, Depth::kPods));
  for (const PodSample& sample : sweep->pods) {
    if (sample.record->id() != id.str()) continue;
    *response.mutable_stats() = StatsOf(*sweep, sample);
    return response;
  }
  *response.mutable_stats() = StatsOfStopped(*pod);
  return response;
}

Result<cri::ListPodSandboxStatsResponse> Stats::Pods(const CallContext& cc,
                                                     const cri::PodSandboxStatsFilter& filter) {
  const SweepRef sweep = CRISP_TRY(collector_.Take(cc, Depth::kPods));
  cri::ListPodSandboxStatsResponse response;
  for (const PodSample& sample : sweep->pods) {
    if (Matches(filter, *sample.record)) *response.add_stats() = StatsOf(*sweep, sample);
  }
  return response;
}

Result<cri::ListPodSandboxMetricsResponse> Stats::Metrics(const CallContext& cc) {
  const SweepRef sweep = CRISP_TRY(collector_.Take(cc, Depth::kMetrics));
  return MetricsOf(*sweep);
}

}  // namespace crisp::rund
