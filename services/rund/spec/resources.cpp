#include "services/rund/spec/resources.h"

#include <algorithm>
#include <cstdlib>

#include "libs/base/try.h"
#include "services/rund/spec/builder.h"

namespace crisp::rund {
namespace {

constexpr std::int64_t kMaxOomScoreAdj = 1000;

/// As the kernel's files are named: "64KB", "2MB", "1GB".
bool IsPageSize(std::string_view text) {
  if (!text.ends_with("KB") && !text.ends_with("MB") && !text.ends_with("GB")) return false;
  text.remove_suffix(2);
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

runtime::v1::LinuxContainerResources MergeResources(
    const runtime::v1::LinuxContainerResources& now,
    const runtime::v1::LinuxContainerResources& change) {
  runtime::v1::LinuxContainerResources merged = now;
  if (change.cpu_period() != 0) merged.set_cpu_period(change.cpu_period());
  if (change.cpu_quota() != 0) merged.set_cpu_quota(change.cpu_quota());
  if (change.cpu_shares() != 0) merged.set_cpu_shares(change.cpu_shares());
  if (change.oom_score_adj() != 0) merged.set_oom_score_adj(change.oom_score_adj());
  if (!change.cpuset_cpus().empty()) merged.set_cpuset_cpus(change.cpuset_cpus());
  if (!change.cpuset_mems().empty()) merged.set_cpuset_mems(change.cpuset_mems());
  const std::int64_t limit = change.memory_limit_in_bytes();
  if (limit != 0) {
    const std::int64_t swap = now.memory_swap_limit_in_bytes() - now.memory_limit_in_bytes();
    if (limit < 0) {
      if (now.memory_swap_limit_in_bytes() != 0) merged.set_memory_swap_limit_in_bytes(-1);
    } else if (now.memory_swap_limit_in_bytes() > 0 && now.memory_limit_in_bytes() > 0) {
      merged.set_memory_swap_limit_in_bytes(limit + swap);
    }
    merged.set_memory_limit_in_bytes(limit);
  }
  if (change.memory_swap_limit_in_bytes() != 0) {
    merged.set_memory_swap_limit_in_bytes(change.memory_swap_limit_in_bytes());
  }
  for (const auto& hugepage : change.hugepage_limits()) {
    if (hugepage.limit() == 0) continue;  // not said
    auto* known = merged.mutable_hugepage_limits();
    const auto same = std::find_if(known->begin(), known->end(), [&hugepage](const auto& other) {
      return other.page_size() == hugepage.page_size();
    });
    *(same != known->end() ? &*same : known->Add()) = hugepage;
  }
  for (const auto& [file, value] : change.unified()) (*merged.mutable_unified())[file] = value;
  return merged;
}

Result<nlohmann::json> BuildResources(const runtime::v1::LinuxContainerResources& resources,
                                      const HostFacts& host) {
  using nlohmann::json;
  json built = json::object();
  if (std::abs(resources.oom_score_adj()) > kMaxOomScoreAdj) {
    return InvalidArgument("linux.resources.oom_score_adj: {} is not between -1000 and 1000",
                           resources.oom_score_adj());
  }

  json cpu = json::object();
  if (resources.cpu_shares() != 0) cpu["shares"] = resources.cpu_shares();
  if (resources.cpu_quota() != 0) cpu["quota"] = resources.cpu_quota();
  if (resources.cpu_period() != 0) cpu["period"] = resources.cpu_period();
  if (!resources.cpuset_cpus().empty()) cpu["cpus"] = resources.cpuset_cpus();
  if (!resources.cpuset_mems().empty()) cpu["mems"] = resources.cpuset_mems();
  if (resources.cpu_shares() < 0 || resources.cpu_period() < 0) {
    return InvalidArgument("linux.resources: cpu_shares and cpu_period cannot be negative");
  }
  if (!cpu.empty()) built["cpu"] = std::move(cpu);

  json memory = json::object();
  const std::int64_t limit = resources.memory_limit_in_bytes();
  const std::int64_t swap = resources.memory_swap_limit_in_bytes();
  if (limit != 0) memory["limit"] = limit;
  if (swap != 0) {
    if (swap > 0 && limit > 0 && swap < limit) {
      return InvalidArgument(
          "linux.resources.memory_swap_limit_in_bytes ({}) is memory and swap together and cannot "
          "be less than memory_limit_in_bytes ({})",
          swap, limit);
    }
    // "As much as memory" means no swap: without swap accounting there is nothing to write for it.
    if (host.swap_accounting) {
      memory["swap"] = swap;
    } else if (swap != limit && swap > 0) {
      return InvalidArgument(
          "linux.resources.memory_swap_limit_in_bytes: this node cannot limit swap");
    }
  }
  if (!memory.empty()) built["memory"] = std::move(memory);

  json hugepages = json::array();
  for (const auto& hugepage : resources.hugepage_limits()) {
    // The kubelet always sends zeros for all sizes, and means them: none of these pages. Where
    // there are none there is nothing to write.
    const bool known =
        host.controllers.contains("hugetlb") && host.huge_page_sizes.contains(hugepage.page_size());
    if (hugepage.limit() == 0 && !known) continue;
    if (!IsPageSize(hugepage.page_size())) {
      return InvalidArgument("linux.resources.hugepage_limits: \"{}\" is not a size of pages",
                             hugepage.page_size());
    }
    if (!host.controllers.contains("hugetlb")) {
      return InvalidArgument(
          "linux.resources.hugepage_limits: this node cannot limit huge pages ({}): it has no "
          "hugetlb cgroup controller",
          hugepage.page_size());
    }
    hugepages.push_back({{"pageSize", hugepage.page_size()}, {"limit", hugepage.limit()}});
  }
  if (!hugepages.empty()) built["hugepageLimits"] = std::move(hugepages);

  if (resources.unified_size() > 0) {
    if (!host.cgroup_v2) {
      return InvalidArgument(
          "linux.resources.unified is for cgroup v2; this node has cgroup v1 controllers");
    }
    for (const auto& [key, value] : resources.unified()) {
      if (key.empty() || key.find('/') != std::string::npos) {
        return InvalidArgument("linux.resources.unified: \"{}\" is not a file of a cgroup", key);
      }
      // Of processes and of the tree, not of resources.
      if (key.starts_with("cgroup.")) {
        return InvalidArgument("linux.resources.unified: \"{}\" is not a limit", key);
      }
      built["unified"][key] = value;
    }
  }
  return built;
}

}  // namespace crisp::rund
