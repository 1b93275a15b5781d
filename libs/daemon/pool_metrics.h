#pragma once

#include <array>
#include <chrono>
#include <mutex>
#include <string>

#include "libs/metrics/registry.h"
#include "libs/work/pool.h"

namespace crisp::daemon {

/// Tells of a pool by lane: what runs and waits now, and how long tasks have waited for a thread.
class PoolMetrics {
 public:
  /// `service`: "rund". The registry outlives it.
  PoolMetrics(metrics::Registry& registry, std::string service);

  /// The pool's sizes, asked for at each scrape; it outlives the registry's last one.
  void Watch(const work::Pool& pool);
  /// For PoolOptions::on_wait. Lanes that a daemon never uses have no histogram.
  void OnWait(work::Lane lane, std::chrono::nanoseconds waited);

 private:
  struct Waits {
    std::once_flag made;
    metrics::Histogram* seconds = nullptr;
  };

  metrics::Registry& registry_;
  const std::string prefix_;  // "crisp_rund_pool"
  std::array<Waits, work::kLanes> waits_;
};

}  // namespace crisp::daemon
