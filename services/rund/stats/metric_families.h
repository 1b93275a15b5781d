#pragma once

#include "cri/v1/api.pb.h"
#include "services/rund/stats/collector.h"

// The metrics of pods and containers under the names that cAdvisor gave them: what a kubelet serves
// at /metrics/cadvisor. Pure functions.
namespace crisp::rund {

/// The same in each call. The first labels of all are container, id (the cgroup), image, name (the
/// id of the CRI), namespace and pod.
runtime::v1::ListMetricDescriptorsResponse MetricDescriptors();

/// Of a sweep of Depth::kMetrics. The label values of each metric are in the order of its
/// descriptor's keys. Seconds are whole ones: the CRI has only integers. The pod's own metrics are
/// of its cgroup, with an empty container label, and of its network.
runtime::v1::ListPodSandboxMetricsResponse MetricsOf(const Sweep& sweep);

}  // namespace crisp::rund
