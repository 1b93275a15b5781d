#include "services/crid/metrics.h"

namespace crisp::crid {

Metrics::Metrics(metrics::Registry& registry)
    : registry_(registry),
      left_behind_(registry.AddCounter(
          "crisp_crid_left_behind_total",
          "Undo and release steps that failed after the answer; the reconcile repeats them.")),
      freed_images_(registry.AddCounter("crisp_crid_orphans_freed_total",
                                        "What the reconcile freed because its owner is gone.",
                                        {{"kind", "snapshot"}})),
      freed_networks_(registry.AddCounter("crisp_crid_orphans_freed_total",
                                          "What the reconcile freed because its owner is gone.",
                                          {{"kind", "attachment"}})),
      reconcile_errors_(registry.AddCounter("crisp_crid_reconcile_errors_total",
                                            "Reconciles that were not done: a daemon is away, or "
                                            "fails. The next one repeats them.")) {}

void Metrics::FlowDone(const std::string& flow, const Status& outcome,
                       std::chrono::nanoseconds took) {
  registry_
      .AddCounter("crisp_crid_flows_total", "Flows over several daemons, by outcome.",
                  {{"flow", flow}, {"code", CodeName(outcome.code())}})
      .Add();
  registry_
      .AddHistogram("crisp_crid_flow_seconds", "Duration of flows over several daemons.",
                    metrics::LatencyBuckets(), {{"flow", flow}})
      .Observe(std::chrono::duration<double>(took).count());
}

void Metrics::ReconcileFailed() { reconcile_errors_.Add(); }

void Metrics::LeftBehind() { left_behind_.Add(); }

void Metrics::Reconciled(std::size_t freed_images, std::size_t freed_networks) {
  freed_images_.Add(static_cast<double>(freed_images));
  freed_networks_.Add(static_cast<double>(freed_networks));
}

}  // namespace crisp::crid
