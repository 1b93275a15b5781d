#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "libs/base/status.h"
#include "libs/metrics/registry.h"

namespace crisp::imaged {

/// How long each stage of a layer's pull was at work, waits for its neighbours apart. Of the
/// download it is the time that the registry took, too.
struct StageTimes {
  std::chrono::nanoseconds download{0};
  std::chrono::nanoseconds inflate{0};
  std::chrono::nanoseconds digest{0};
  std::chrono::nanoseconds unpack{0};
};

/// Why a pull failed, for a metric: one of a few words. "not_found", "denied" (credentials or their
/// rights), "registry" (it cannot be reached, or fails), "signature", "timeout", "cancelled",
/// "invalid" (the name, or what the registry sent), "no_room" (disk, or a limit), "other".
std::string_view PullFailureCause(const Status& status);

/// What imaged counts, told as events. Any thread.
class Metrics {
 public:
  explicit Metrics(metrics::Registry& registry);

  void PullStarted();
  void PullDone(const Status& status, std::chrono::nanoseconds took);
  void LayerStarted();
  void LayerDone(const Status& status, const StageTimes& times);
  void Fetched(std::uint64_t compressed_bytes);
  /// Of a zstd:chunked layer: what need not come, as its files were here.
  void Reused(std::uint64_t compressed_bytes);
  void SnapshotMade();
  void SnapshotReleased();
  void OrphansFreed(std::size_t count);
  void LayerCollected();

 private:
  metrics::Counter& pulls_ok_;
  metrics::Counter& pulls_failed_;
  std::map<std::string, metrics::Counter*, std::less<>> pull_failures_;  // by cause
  metrics::Gauge& pulls_active_;
  metrics::Histogram& pull_seconds_;
  metrics::Counter& layers_ok_;
  metrics::Counter& layers_failed_;
  metrics::Gauge& layers_active_;
  metrics::Counter& download_seconds_;
  metrics::Counter& inflate_seconds_;
  metrics::Counter& digest_seconds_;
  metrics::Counter& unpack_seconds_;
  metrics::Counter& layer_bytes_;
  metrics::Counter& reused_bytes_;
  metrics::Counter& snapshots_made_;
  metrics::Counter& snapshots_released_;
  metrics::Counter& orphans_;
  metrics::Counter& collected_;
};

}  // namespace crisp::imaged
