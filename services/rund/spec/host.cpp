#include <sys/resource.h>

#include <charconv>

#include "libs/base/try.h"
#include "libs/os/cgroup.h"
#include "libs/os/files.h"
#include "libs/os/limit_names.h"
#include "services/rund/spec/builder.h"
#include "services/rund/spec/capabilities.h"

namespace crisp::rund {
namespace {

/// The value of "CapBnd:" and its like in /proc/self/status.
Result<CapabilityBits> StatusBits(std::string_view status, std::string_view field) {
  const std::size_t at = status.find(field);
  if (at == std::string_view::npos) return Internal("/proc/self/status has no {}", field);
  std::string_view text = status.substr(at + field.size());
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  CapabilityBits bits = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), bits, 16).ec != std::errc()) {
    return Internal("/proc/self/status: {} is not a number", field);
  }
  return bits;
}

void AddHardLimits(HostFacts& facts) {
  for (const os::ResourceLimit& known : os::ResourceLimits()) {
    struct rlimit limit {};
    const auto resource = static_cast<__rlimit_resource>(known.resource);
    if (getrlimit(resource, &limit) == 0 && limit.rlim_max != RLIM_INFINITY) {
      facts.hard_limits[std::string(known.name)] = limit.rlim_max;
    }
  }
}

// /sys/kernel/mm/hugepages/hugepages-2048kB
std::set<std::string> HugePageSizes() {
  std::set<std::string> sizes;
  for (std::string_view name : os::ListDir("/sys/kernel/mm/hugepages").value_or({})) {
    constexpr std::string_view kPrefix = "hugepages-";
    if (!name.starts_with(kPrefix)) continue;
    name.remove_prefix(kPrefix.size());
    std::uint64_t kib = 0;
    std::from_chars(name.data(), name.data() + name.size(), kib);
    if (kib == 0) continue;
    sizes.insert(kib >= 1U << 20U   ? fmt::format("{}GB", kib >> 20U)
                 : kib >= 1U << 10U ? fmt::format("{}MB", kib >> 10U)
                                    : fmt::format("{}KB", kib));
  }
  return sizes;
}

}  // namespace

Result<HostFacts> DetectHost() {
  HostFacts facts;
  const std::string status = CRISP_TRY(os::ReadFile("/proc/self/status"));
  facts.bounding_capabilities = CRISP_TRY(StatusBits(status, "CapBnd:"));
  // What the daemon cannot do itself it cannot give either, whatever the bounding set says.
  facts.bounding_capabilities &= CRISP_TRY(StatusBits(status, "CapPrm:"));
  const int resource = *os::CapabilityNumber("CAP_SYS_RESOURCE");
  const bool may_raise =
      ((facts.bounding_capabilities >> static_cast<unsigned>(resource)) & 1U) != 0;
  if (!may_raise) {
    const std::string own = CRISP_TRY(os::ReadFile("/proc/self/oom_score_adj"));
    if (std::from_chars(own.data(), own.data() + own.size(), facts.lowest_oom_score_adj).ec !=
        std::errc()) {
      return Internal("/proc/self/oom_score_adj is not a number");
    }
    AddHardLimits(facts);
  }
  const os::Cgroups cgroups = CRISP_TRY(os::Cgroups::Detect());
  facts.cgroup_v2 = cgroups.mode() == os::CgroupMode::kV2;
  facts.controllers = cgroups.controllers();
  facts.huge_page_sizes = HugePageSizes();
  if (facts.cgroup_v2) {
    facts.swap_accounting = os::Exists("/proc/swaps") && facts.controllers.contains("memory");
  } else {
    // A hybrid machine's v2 controllers are out of the runtime's reach: it sees the v1 ones.
    if (!os::IsDirectory("/sys/fs/cgroup/hugetlb")) facts.controllers.erase("hugetlb");
    facts.swap_accounting = os::Exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes");
  }
  const Result<std::string> apparmor = os::ReadFile("/sys/module/apparmor/parameters/enabled");
  facts.apparmor = apparmor.ok() && apparmor->starts_with('Y');
  return facts;
}

}  // namespace crisp::rund
