#include "libs/daemon/pool_metrics.h"

#include <fmt/format.h>

#include <utility>

namespace crisp::daemon {
namespace {

using work::Lane;

metrics::Labels LabelsOf(Lane lane) { return {{"lane", std::string(work::LaneName(lane))}}; }

/// Few: there is one set for each lane. A task that waits at all waits for long.
std::vector<double> WaitBuckets() { return {0.001, 0.01, 0.1, 1, 10, 60}; }

}  // namespace

PoolMetrics::PoolMetrics(metrics::Registry& registry, std::string service)
    : registry_(registry), prefix_(fmt::format("crisp_{}_pool", std::move(service))) {}

void PoolMetrics::Watch(const work::Pool& pool) {
  for (std::size_t number = 0; number < work::kLanes; ++number) {
    const auto lane = static_cast<Lane>(number);
    if (lane == Lane::kFast) continue;  // runs without the pool
    registry_.AddGauge(prefix_ + "_running_tasks", "Tasks that run", LabelsOf(lane),
                       [&pool, lane] { return static_cast<double>(pool.Stats(lane).running); });
    registry_.AddGauge(prefix_ + "_queued_tasks", "Tasks that wait", LabelsOf(lane),
                       [&pool, lane] { return static_cast<double>(pool.Stats(lane).queued); });
    registry_.AddCounter(
        prefix_ + "_exceptions_total", "Exceptions that have left a task: bugs", LabelsOf(lane),
        [&pool, lane] { return static_cast<double>(pool.Stats(lane).exceptions); });
  }
}

void PoolMetrics::OnWait(Lane lane, std::chrono::nanoseconds waited) {
  Waits& waits = waits_.at(static_cast<std::size_t>(lane));
  std::call_once(waits.made, [&] {
    waits.seconds =
        &registry_.AddHistogram(prefix_ + "_wait_seconds", "How long tasks waited for a thread",
                                WaitBuckets(), LabelsOf(lane));
  });
  waits.seconds->Observe(std::chrono::duration<double>(waited).count());
}

}  // namespace crisp::daemon
