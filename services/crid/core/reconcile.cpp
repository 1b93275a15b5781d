#include "services/crid/core/reconcile.h"

#include <utility>

#include "libs/log/log.h"

namespace crisp::crid {

Status Reconcile(const CallContext& cc, const View& view, Backends& backends, Metrics& metrics) {
  const auto containers = view.LiveIds(Kind::kContainer);
  const auto pods = view.LiveIds(Kind::kPod);
  if (!containers || !pods) return Unavailable("an instance of rund is away");

  imaged::v1::ReconcileRequest owners;
  for (const std::string& id : *containers) owners.add_live_owner_ids(id);
  const auto images = backends.imaged().Reconcile(cc, owners);
  netd::v1::ReconcileRequest live_pods;
  for (const std::string& id : *pods) live_pods.add_live_pod_ids(id);
  const auto networks = backends.netd().Reconcile(cc, live_pods);

  std::size_t freed_images = 0;
  std::size_t freed_networks = 0;
  if (images.ok()) freed_images = static_cast<std::size_t>(images->freed_owner_ids_size());
  if (networks.ok()) freed_networks = static_cast<std::size_t>(networks->freed_pod_ids_size());
  metrics.Reconciled(freed_images, freed_networks);
  if (freed_images + freed_networks > 0) {
    log::Warn("orphans freed", {{"snapshots", freed_images}, {"attachments", freed_networks}});
  }
  if (!images.ok()) return images.status();
  if (!networks.ok()) return networks.status();
  return Status::Ok();
}

bool ReconcileStreak::Done(const Status& outcome) {
  auto streak = streak_.lock();
  streak->last = outcome;
  streak->failures = outcome.ok() ? 0 : streak->failures + 1;
  return streak->failures == kMany;
}

Status ReconcileStreak::trouble() const {
  auto streak = streak_.lock();
  return streak->failures >= kMany ? streak->last : Status::Ok();
}

}  // namespace crisp::crid
