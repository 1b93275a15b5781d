#include "services/rund/core/oom_kills.h"

#include <algorithm>

#include "libs/log/log.h"
#include "services/rund/runtime/slices.h"

namespace crisp::rund {

std::optional<std::uint64_t> OomKills::Before(const std::string& pod_cgroup) const {
  if (UnitOf(pod_cgroup).empty()) return std::nullopt;
  return cgroups_.OomKills(pod_cgroup).value_or(0);
}

OomKills::Verdict OomKills::Of(const ContainerRecord& container, const ExitRecord& exit) const {
  // The monitor may have seen the end before it saw why.
  const std::uint64_t own = cgroups_.OomKills(container.cgroup_path()).value_or(0);
  if (UnitOf(container.cgroup_path()).empty()) return {exit.oom || own > 0, std::nullopt};
  const PodRef pod = state_.FindPod(PodId(container.pod_id()));
  const std::uint64_t in_pod = pod ? cgroups_.OomKills(pod->cgroup_parent()).value_or(0) : 0;
  // Of one that was made by an older version nothing is known.
  const std::uint64_t before = container.has_pod_oom_kills() ? container.pod_oom_kills() : in_pod;
  const std::uint64_t accounted = std::max(pod ? pod->oom_kills_accounted() : 0, before);
  if (!exit.oom && own == 0 && in_pod <= accounted) return {};
  return {true, accounted + std::max<std::uint64_t>(own, 1)};
}

void OomKills::Account(const ContainerRecord& container, const Verdict& verdict) {
  if (!verdict.accounted) return;
  const auto changed = state_.ChangePod(PodId(container.pod_id()), [&verdict](PodRecord& record) {
    record.set_oom_kills_accounted(*verdict.accounted);
    return Status::Ok();
  });
  log::IfError("account for an OOM kill", changed.ok() ? Status::Ok() : changed.status());
}

}  // namespace crisp::rund
