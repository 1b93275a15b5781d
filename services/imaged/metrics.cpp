#include "services/imaged/metrics.h"

#include <algorithm>
#include <array>

namespace crisp::imaged {
namespace {

metrics::Counter& StageSeconds(metrics::Registry& registry, const std::string& stage) {
  return registry.AddCounter("crisp_imaged_stage_seconds_total",
                             "Time that layers' stages were at work, waits for each other apart",
                             {{"stage", stage}});
}

constexpr std::array<std::string_view, 9> kCauses = {"not_found", "denied",  "registry",
                                                     "signature", "timeout", "cancelled",
                                                     "invalid",   "no_room", "other"};

}  // namespace

std::string_view PullFailureCause(const Status& status) {
  switch (status.code()) {
    case Code::kNotFound: return "not_found";
    case Code::kUnauthenticated:
    case Code::kPermissionDenied: return "denied";
    case Code::kDeadlineExceeded: return "timeout";
    case Code::kCancelled: return "cancelled";
    case Code::kInvalidArgument:
    case Code::kDataLoss:
    case Code::kOutOfRange: return "invalid";
    case Code::kResourceExhausted: return "no_room";
    // The code of what the kubelet knows by its first word.
    case Code::kUnknown: break;
    default: return "other";
  }
  const std::string& message = status.message();
  if (message.find("SignatureValidationFailed") != message.npos) return "signature";
  if (message.find("RegistryUnavailable") != message.npos) return "registry";
  return "other";
}

Metrics::Metrics(metrics::Registry& registry)
    : pulls_ok_(registry.AddCounter("crisp_imaged_pulls_total", "Image pulls that ended",
                                    {{"outcome", "ok"}})),
      pulls_failed_(registry.AddCounter("crisp_imaged_pulls_total", "Image pulls that ended",
                                        {{"outcome", "failed"}})),
      pulls_active_(registry.AddGauge("crisp_imaged_pulls_active", "Image pulls under way")),
      pull_seconds_(registry.AddHistogram("crisp_imaged_pull_seconds", "Duration of image pulls",
                                          metrics::LatencyBuckets())),
      layers_ok_(registry.AddCounter("crisp_imaged_layers_total", "Layers fetched and unpacked",
                                     {{"outcome", "ok"}})),
      layers_failed_(registry.AddCounter("crisp_imaged_layers_total", "Layers fetched and unpacked",
                                         {{"outcome", "failed"}})),
      layers_active_(
          registry.AddGauge("crisp_imaged_layers_active", "Layers being fetched and unpacked")),
      download_seconds_(StageSeconds(registry, "download")),
      inflate_seconds_(StageSeconds(registry, "inflate")),
      digest_seconds_(StageSeconds(registry, "digest")),
      unpack_seconds_(StageSeconds(registry, "unpack")),
      layer_bytes_(registry.AddCounter("crisp_imaged_fetched_bytes_total",
                                       "Compressed bytes of layers fetched, as they come")),
      reused_bytes_(
          registry.AddCounter("crisp_imaged_reused_bytes_total",
                              "Compressed bytes of layers not fetched: their files were here")),
      snapshots_made_(registry.AddCounter("crisp_imaged_snapshots_made_total", "Snapshots made")),
      snapshots_released_(
          registry.AddCounter("crisp_imaged_snapshots_released_total", "Snapshots given back")),
      orphans_(registry.AddCounter("crisp_imaged_orphans_freed_total",
                                   "Snapshots freed because their owner was gone")),
      collected_(registry.AddCounter("crisp_imaged_layers_collected_total",
                                     "Layers deleted because nothing needed them")) {
  for (const std::string_view cause : kCauses) {
    pull_failures_[std::string(cause)] =
        &registry.AddCounter("crisp_imaged_pull_failures_total", "Image pulls that failed, by why",
                             {{"cause", std::string(cause)}});
  }
}

void Metrics::PullStarted() { pulls_active_.Add(1); }
void Metrics::PullDone(const Status& status, std::chrono::nanoseconds took) {
  pulls_active_.Add(-1);
  (status.ok() ? pulls_ok_ : pulls_failed_).Add();
  if (!status.ok()) pull_failures_.find(PullFailureCause(status))->second->Add();
  pull_seconds_.Observe(std::chrono::duration<double>(took).count());
}
void Metrics::LayerStarted() { layers_active_.Add(1); }
void Metrics::LayerDone(const Status& status, const StageTimes& times) {
  layers_active_.Add(-1);
  (status.ok() ? layers_ok_ : layers_failed_).Add();
  const auto add = [](metrics::Counter& counter, std::chrono::nanoseconds time) {
    counter.Add(std::max(std::chrono::duration<double>(time).count(), 0.0));
  };
  add(download_seconds_, times.download);
  add(inflate_seconds_, times.inflate);
  add(digest_seconds_, times.digest);
  add(unpack_seconds_, times.unpack);
}
void Metrics::Fetched(std::uint64_t compressed_bytes) {
  layer_bytes_.Add(static_cast<double>(compressed_bytes));
}
void Metrics::Reused(std::uint64_t compressed_bytes) {
  reused_bytes_.Add(static_cast<double>(compressed_bytes));
}
void Metrics::SnapshotMade() { snapshots_made_.Add(); }
void Metrics::SnapshotReleased() { snapshots_released_.Add(); }
void Metrics::OrphansFreed(std::size_t count) { orphans_.Add(static_cast<double>(count)); }
void Metrics::LayerCollected() { collected_.Add(); }

}  // namespace crisp::imaged
