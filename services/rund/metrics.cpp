#include "services/rund/metrics.h"

namespace crisp::rund {

Metrics::Metrics(metrics::Registry& r)
    : pods_started_(r.AddCounter("crisp_rund_pods_started_total", "Pods that became ready.")),
      pods_failed_(
          r.AddCounter("crisp_rund_pod_failures_total", "Pods that could not be started.")),
      create_seconds_(r.AddHistogram("crisp_rund_container_create_seconds",
                                     "Bundle, mounts, monitor and the runtime's create.",
                                     metrics::LatencyBuckets())),
      creates_failed_(r.AddCounter("crisp_rund_container_create_failures_total",
                                   "Containers that could not be created.")),
      start_seconds_(r.AddHistogram("crisp_rund_container_start_seconds", "The runtime's start.",
                                    metrics::LatencyBuckets())),
      starts_failed_(r.AddCounter("crisp_rund_container_start_failures_total",
                                  "Containers that could not be started.")),
      checkpoint_seconds_(r.AddHistogram("crisp_rund_container_checkpoint_seconds",
                                         "A container's checkpoint, as an archive.",
                                         metrics::LatencyBuckets())),
      checkpoints_failed_(r.AddCounter("crisp_rund_container_checkpoint_failures_total",
                                       "Containers that could not be checkpointed.")),
      exits_(r.AddCounter("crisp_rund_container_exits_total", "Containers that ended.")),
      oom_kills_(r.AddCounter("crisp_rund_container_oom_kills_total",
                              "Containers that ended because memory ran out.")),
      monitors_lost_(r.AddCounter("crisp_rund_monitors_lost_total",
                                  "Monitors that ended without leaving an exit code.")),
      abandoned_(r.AddCounter("crisp_rund_abandoned_removed_total",
                              "Reservations that nobody came back for.")),
      cleanup_failures_(r.AddCounter("crisp_rund_cleanup_failures_total",
                                     "Attempts to take something down that failed.")),
      unreadable_(r.AddCounter("crisp_rund_records_unreadable_total",
                               "Records that could not be read at the start.")),
      log_lines_dropped_(r.AddCounter("crisp_rund_log_lines_dropped_total",
                                      "Lines left out of logs because of their rate limit.")),
      log_bytes_dropped_(r.AddCounter("crisp_rund_log_bytes_dropped_total",
                                      "Bytes left out of logs because of their rate limit.")),
      log_lines_lost_(r.AddCounter("crisp_rund_log_lines_lost_total",
                                   "Lines of limited logs that could not be written.")),
      log_bytes_lost_(r.AddCounter("crisp_rund_log_bytes_lost_total",
                                   "Bytes of limited logs that could not be written.")) {}

void Metrics::PodStarted(const Status& status) {
  (status.ok() ? pods_started_ : pods_failed_).Add();
}

void Metrics::ContainerCreated(const Status& status, std::chrono::nanoseconds took) {
  if (!status.ok()) return creates_failed_.Add();
  create_seconds_.Observe(std::chrono::duration<double>(took).count());
}

void Metrics::ContainerStarted(const Status& status, std::chrono::nanoseconds took) {
  if (!status.ok()) return starts_failed_.Add();
  start_seconds_.Observe(std::chrono::duration<double>(took).count());
}

void Metrics::ContainerCheckpointed(const Status& status, std::chrono::nanoseconds took) {
  if (!status.ok()) return checkpoints_failed_.Add();
  checkpoint_seconds_.Observe(std::chrono::duration<double>(took).count());
}

void Metrics::ContainerExited(bool oom) {
  exits_.Add();
  if (oom) oom_kills_.Add();
}

void Metrics::MonitorLost() { monitors_lost_.Add(); }
void Metrics::AbandonedRemoved() { abandoned_.Add(); }
void Metrics::RecordsUnreadable(std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) unreadable_.Add();
}
void Metrics::CleanupFailed() { cleanup_failures_.Add(); }

void Metrics::LogsLeftOut(std::uint64_t dropped_lines, std::uint64_t dropped_bytes,
                          std::uint64_t lost_lines, std::uint64_t lost_bytes) {
  log_lines_dropped_.Add(static_cast<double>(dropped_lines));
  log_bytes_dropped_.Add(static_cast<double>(dropped_bytes));
  log_lines_lost_.Add(static_cast<double>(lost_lines));
  log_bytes_lost_.Add(static_cast<double>(lost_bytes));
}

}  // namespace crisp::rund
