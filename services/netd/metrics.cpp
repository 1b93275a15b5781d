#include "services/netd/metrics.h"

namespace crisp::netd {
namespace {

double Seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

/// Plugins come from the node's configuration: a bound all the same.
constexpr std::size_t kMaxPluginTypes = 32;

}  // namespace

Metrics::Metrics(metrics::Registry& registry)
    : registry_(registry),
      attach_errors_(registry.AddCounter("crisp_netd_attach_errors_total",
                                         "Pods that could not be given a network")),
      detach_errors_(registry.AddCounter("crisp_netd_detach_errors_total",
                                         "Detachments that failed; they are tried again")),
      attach_seconds_(registry.AddHistogram("crisp_netd_attach_seconds",
                                            "Giving a pod its network, plugins included",
                                            metrics::LatencyBuckets())),
      attach_plugin_seconds_(registry.AddHistogram("crisp_netd_attach_plugin_seconds",
                                                   "The CNI plugins' part of an attachment",
                                                   metrics::LatencyBuckets())),
      detach_seconds_(registry.AddHistogram("crisp_netd_detach_seconds",
                                            "Taking a pod's network away, plugins included",
                                            metrics::LatencyBuckets())),
      orphans_(registry.AddCounter("crisp_netd_orphans_freed_total",
                                   "Attachments freed because no pod owned them")),
      rolled_back_(registry.AddCounter("crisp_netd_rolled_back_total",
                                       "Half-done attachments undone after a restart or a reboot")),
      gc_(registry.AddCounter("crisp_netd_gc_total", "CNI GCs of a network")),
      gc_errors_(registry.AddCounter("crisp_netd_gc_errors_total", "CNI GCs that failed")),
      attachments_(
          registry.AddGauge("crisp_netd_attachments", "Pods with a network, whole or half done")) {}

void Metrics::AttachDone(Code code, std::chrono::nanoseconds took,
                         std::chrono::nanoseconds plugins) {
  if (code != Code::kOk) {
    attach_errors_.Add();
    return;
  }
  attach_seconds_.Observe(Seconds(took));
  attach_plugin_seconds_.Observe(Seconds(plugins));
}

void Metrics::DetachDone(Code code, std::chrono::nanoseconds took) {
  if (code != Code::kOk) {
    detach_errors_.Add();
    return;
  }
  detach_seconds_.Observe(Seconds(took));
}

void Metrics::PluginDone(const std::string& type, std::string_view verb, Code code,
                         std::chrono::nanoseconds took) {
  std::string plugin = type;
  {
    auto types = plugin_types_.lock();
    if (types->size() < kMaxPluginTypes) types->insert(type);
    if (!types->contains(type)) plugin = "other";
  }
  registry_
      .AddCounter("crisp_netd_cni_operations_total", "Runs of CNI plugins, by outcome",
                  {{"plugin", plugin}, {"verb", std::string(verb)}, {"code", CodeName(code)}})
      .Add();
  registry_
      .AddHistogram("crisp_netd_cni_operation_seconds", "How long runs of CNI plugins took",
                    metrics::LatencyBuckets(), {{"plugin", plugin}, {"verb", std::string(verb)}})
      .Observe(Seconds(took));
}

void Metrics::Watch(std::function<std::size_t()> owed) {
  registry_.AddGauge("crisp_netd_detachments_owed",
                     "Detachments that failed or were cut off, to be done in the background", {},
                     [owed = std::move(owed)] { return static_cast<double>(owed()); });
}

void Metrics::GarbageCollected(Code code) {
  gc_.Add();
  if (code != Code::kOk) gc_errors_.Add();
}

void Metrics::OrphanFreed() { orphans_.Add(); }
void Metrics::RolledBack() { rolled_back_.Add(); }
void Metrics::AttachmentRecorded() { attachments_.Add(1); }
void Metrics::AttachmentForgotten() { attachments_.Add(-1); }
void Metrics::AttachmentsAre(std::size_t count) { attachments_.Set(static_cast<double>(count)); }

}  // namespace crisp::netd
