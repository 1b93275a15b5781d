#pragma once

#include <chrono>
#include <cstdint>

#include "libs/base/status.h"
#include "libs/metrics/registry.h"

namespace crisp::imaged {

/// What imaged counts, told as events. Any thread.
class Metrics {
 public:
  explicit Metrics(metrics::Registry& registry);

  void PullStarted();
  void PullDone(const Status& status, std::chrono::nanoseconds took);
  void LayerDone(const Status& status, std::uint64_t compressed_bytes);
  void SnapshotMade();
  void SnapshotReleased();
  void OrphansFreed(std::size_t count);
  void LayerCollected();

 private:
  metrics::Counter& pulls_ok_;
  metrics::Counter& pulls_failed_;
  metrics::Gauge& pulls_active_;
  metrics::Histogram& pull_seconds_;
  metrics::Counter& layers_ok_;
  metrics::Counter& layers_failed_;
  metrics::Counter& layer_bytes_;
  metrics::Counter& snapshots_made_;
  metrics::Counter& snapshots_released_;
  metrics::Counter& orphans_;
  metrics::Counter& collected_;
};

}  // namespace crisp::imaged
