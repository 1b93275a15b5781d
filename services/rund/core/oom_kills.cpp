#include "services/rund/core/oom_kills.h"

#include <algorithm>
#include <csignal>

#include "libs/log/log.h"
#include "services/rund/core/status.h"
#include "services/rund/runtime/slices.h"

namespace crisp::rund {

std::optional<std::uint64_t> OomKills::Before(const PodRecord& pod) const {
  if (UnitOf(pod.cgroup_parent()).empty()) return std::nullopt;
  return SettledIn(pod, "").kills;
}

OomKills::Settled OomKills::SettledIn(const PodRecord& pod, const std::string& without) const {
  Settled settled{.kills = cgroups_.OomKills(pod.cgroup_parent()).value_or(0)};
  for (const ContainerRef& other : state_.ContainersOf(PodId(pod.id()))) {
    if (other->id() == without || !Runs(other.get()) || other->cgroup_path().empty()) continue;
    const std::uint64_t own = cgroups_.OomKills(other->cgroup_path()).value_or(0);
    settled.kills -= std::min(settled.kills, own);
    if (!cgroups_.Exists(other->cgroup_path()).value_or(true)) settled.others_end = true;
  }
  return settled;
}

OomKills::Verdict OomKills::Of(const ContainerRecord& container, const ExitRecord& exit) const {
  const bool killed = exit.code == 128 + SIGKILL;
  // The monitor may have seen the end before it saw why.
  const std::uint64_t own = cgroups_.OomKills(container.cgroup_path()).value_or(0);
  if (UnitOf(container.cgroup_path()).empty()) return {killed && (exit.oom || own > 0), {}};
  // In this order: then a count of nought was read from a counter.
  const bool counted = cgroups_.Exists(container.cgroup_path()).value_or(false);
  const PodRef pod = state_.FindPod(PodId(container.pod_id()));
  const Settled settled = pod ? SettledIn(*pod, container.id()) : Settled();
  // Of one that was made by an older version nothing is known.
  const std::uint64_t before =
      container.has_pod_oom_kills() ? container.pod_oom_kills() : settled.kills;
  const std::uint64_t known = std::max(pod ? pod->oom_kills_accounted() : 0, before);
  const std::uint64_t open = settled.kills - std::min(settled.kills, known);
  if (counted || own > 0) return {killed && (exit.oom || own > 0), known + own};
  // More than one could be another's that ends as well.
  const std::uint64_t most = killed ? 1 : 0;
  return {killed && (exit.oom || open > 0),
          known + (settled.others_end ? std::min(open, most) : open)};
}

void OomKills::Account(const ContainerRecord& container, const Verdict& verdict) {
  const PodRef pod = state_.FindPod(PodId(container.pod_id()));
  if (!verdict.accounted || !pod || pod->oom_kills_accounted() >= *verdict.accounted) return;
  const auto changed = state_.ChangePod(PodId(container.pod_id()), [&verdict](PodRecord& record) {
    record.set_oom_kills_accounted(*verdict.accounted);
    return Status::Ok();
  });
  log::IfError("account for an OOM kill", changed.ok() ? Status::Ok() : changed.status());
}

}  // namespace crisp::rund
