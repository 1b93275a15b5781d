#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "libs/base/status.h"
#include "libs/metrics/registry.h"

namespace crisp::rund {

/// What rund counts. Each method is something that happened. Any thread.
class Metrics {
 public:
  explicit Metrics(metrics::Registry& registry);

  void PodStarted(const Status& status);
  void ContainerCreated(const Status& status, std::chrono::nanoseconds took);
  void ContainerStarted(const Status& status, std::chrono::nanoseconds took);
  void ContainerCheckpointed(const Status& status, std::chrono::nanoseconds took);
  void ContainerExited(bool oom);
  /// conmon ended without leaving an exit code.
  void MonitorLost();
  /// A reservation that nobody came back for was taken away.
  void AbandonedRemoved();
  /// Found at the start, and set aside.
  void RecordsUnreadable(std::size_t count);
  /// Taking something down failed; it is tried again by the next remove or start.
  void CleanupFailed();
  /// Lines that did not get into containers' logs: over their limits, or not to be written.
  void LogsLeftOut(std::uint64_t dropped_lines, std::uint64_t dropped_bytes,
                   std::uint64_t lost_lines, std::uint64_t lost_bytes);

 private:
  metrics::Counter& pods_started_;
  metrics::Counter& pods_failed_;
  metrics::Histogram& create_seconds_;
  metrics::Counter& creates_failed_;
  metrics::Histogram& start_seconds_;
  metrics::Counter& starts_failed_;
  metrics::Histogram& checkpoint_seconds_;
  metrics::Counter& checkpoints_failed_;
  metrics::Counter& exits_;
  metrics::Counter& oom_kills_;
  metrics::Counter& monitors_lost_;
  metrics::Counter& abandoned_;
  metrics::Counter& cleanup_failures_;
  metrics::Counter& unreadable_;
  metrics::Counter& log_lines_dropped_;
  metrics::Counter& log_bytes_dropped_;
  metrics::Counter& log_lines_lost_;
  metrics::Counter& log_bytes_lost_;
};

}  // namespace crisp::rund
