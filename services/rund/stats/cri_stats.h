#pragma once

#include "cri/v1/api.pb.h"
#include "services/rund/stats/collector.h"

// From samples to the messages of the CRI. Pure functions.
namespace crisp::rund {

runtime::v1::ContainerStats StatsOf(const Sweep& sweep, const ContainerSample& container);
/// Of one that has ended: who it is, and what its writable layer still holds.
runtime::v1::ContainerStats StatsOfEnded(const ContainerRecord& container,
                                         const std::optional<DiskUsage>& disk,
                                         const std::string& mountpoint);
runtime::v1::PodSandboxStats StatsOf(const Sweep& sweep, const PodSample& pod);
/// Of one that is not ready: who it is.
runtime::v1::PodSandboxStats StatsOfStopped(const PodRecord& pod);

/// What is set in the filter must match, all of it; ids may be prefixes.
bool Matches(const runtime::v1::ContainerStatsFilter& filter, const ContainerRecord& container);
bool Matches(const runtime::v1::PodSandboxStatsFilter& filter, const PodRecord& pod);

}  // namespace crisp::rund
