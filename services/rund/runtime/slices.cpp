#include "services/rund/runtime/slices.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <limits>
#include <vector>

#include "libs/base/try.h"
#include "services/rund/runtime/cgroup_limits.h"

namespace crisp::rund {
namespace {

constexpr std::string_view kSlice = ".slice";
constexpr std::string_view kScope = ".scope";
constexpr std::uint64_t kInfinity = std::numeric_limits<std::uint64_t>::max();
constexpr std::size_t kMaxUnitName = 255;
constexpr unsigned kMaxBit = 8191;

bool IsUnitCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view(":-_.\\@").find(c) != std::string_view::npos;
}

std::uint64_t LimitOf(std::int64_t bytes) {
  return bytes < 0 ? kInfinity : static_cast<std::uint64_t>(bytes);
}

bool TakeNumber(std::string_view& text, unsigned& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return error == std::errc() && number <= kMaxBit;
}

/// "0-2,5" as bits, the lowest byte first.
Result<std::vector<std::uint8_t>> Bits(std::string_view list, const char* field) {
  std::vector<std::uint8_t> bits;
  std::string_view rest = list;
  while (!rest.empty()) {
    unsigned first = 0;
    bool good = TakeNumber(rest, first);
    unsigned last = first;
    if (good && rest.starts_with('-')) {
      rest.remove_prefix(1);
      good = TakeNumber(rest, last);
    }
    if (!good || last < first || (!rest.empty() && rest.front() != ',')) {
      return InvalidArgument("{}: '{}' is no list of numbers", field, list);
    }
    if (!rest.empty()) rest.remove_prefix(1);
    bits.resize(std::max<std::size_t>(bits.size(), last / 8 + 1));
    for (unsigned bit = first; bit <= last; ++bit) {
      bits[bit / 8] = static_cast<std::uint8_t>(bits[bit / 8] | (1U << (bit % 8)));
    }
  }
  return bits;
}

/// Of `unified`; systemd would write its own value back at the next daemon-reload.
const char* PropertyOf(std::string_view file) {
  if (file == "pids.max") return "TasksMax";
  if (file == "memory.max") return "MemoryMax";
  if (file == "memory.high") return "MemoryHigh";
  if (file == "memory.low") return "MemoryLow";
  if (file == "memory.min") return "MemoryMin";
  if (file == "memory.swap.max") return "MemorySwapMax";
  if (file == "cpu.weight") return "CPUWeight";
  return nullptr;
}

}  // namespace

Result<std::string> ExpandSlice(const std::string& slice) {
  const std::string_view name =
      std::string_view(slice).substr(0, slice.size() - std::min(slice.size(), kSlice.size()));
  const bool good = slice.ends_with(kSlice) && slice.size() <= kMaxUnitName && !name.empty() &&
                    !name.starts_with('-') && !name.ends_with('-') &&
                    name.find("--") == name.npos &&
                    std::all_of(name.begin(), name.end(), IsUnitCharacter);
  if (!good) return InvalidArgument("'{}' is not the name of a systemd slice", slice);
  std::string path;
  for (auto dash = name.find('-'); dash != name.npos; dash = name.find('-', dash + 1)) {
    path.append("/").append(name.substr(0, dash)).append(kSlice);
  }
  return path + "/" + slice;
}

std::string UnitCgroup(std::string_view cgroup) {
  if (const auto scope = cgroup.find(".scope/"); scope != cgroup.npos) {
    cgroup = cgroup.substr(0, scope + kScope.size());
  }
  return cgroup.ends_with(kScope) || cgroup.ends_with(kSlice) ? std::string(cgroup) : "";
}

std::string UnitOf(std::string_view cgroup) {
  const std::string own = UnitCgroup(cgroup);
  return own.substr(own.rfind('/') + 1);
}

Result<systemd::Properties> UnitProperties(const runtime::v1::LinuxContainerResources& resources) {
  systemd::Properties properties;
  if (resources.cpu_shares() != 0) {
    properties.push_back(
        {"CPUWeight", static_cast<std::uint64_t>(CpuWeightOf(resources.cpu_shares()))});
  }
  if (resources.cpu_quota() != 0 || resources.cpu_period() != 0) {
    constexpr std::uint64_t kSecond = 1'000'000;
    const std::uint64_t period = resources.cpu_period() > 0
                                     ? static_cast<std::uint64_t>(resources.cpu_period())
                                     : kDefaultCpuPeriod;
    const std::uint64_t quota =
        resources.cpu_quota() > 0
            ? static_cast<std::uint64_t>(resources.cpu_quota()) * kSecond / period
            : kInfinity;
    properties.push_back({"CPUQuotaPeriodUSec", period});
    properties.push_back({"CPUQuotaPerSecUSec", quota});
  }
  const std::int64_t memory = resources.memory_limit_in_bytes();
  const std::int64_t both = resources.memory_swap_limit_in_bytes();
  if (memory != 0) properties.push_back({"MemoryMax", LimitOf(memory)});
  if (both != 0) {
    properties.push_back({"MemorySwapMax", LimitOf(both < 0     ? -1
                                                   : memory > 0 ? both - memory
                                                                : both)});
  }
  if (!resources.cpuset_cpus().empty()) {
    properties.push_back(
        {"AllowedCPUs", CRISP_TRY(Bits(resources.cpuset_cpus(), "linux.cpuset_cpus"))});
  }
  if (!resources.cpuset_mems().empty()) {
    properties.push_back(
        {"AllowedMemoryNodes", CRISP_TRY(Bits(resources.cpuset_mems(), "linux.cpuset_mems"))});
  }
  for (const auto& [file, value] : resources.unified()) {
    const char* name = PropertyOf(file);
    if (name == nullptr) continue;
    std::uint64_t number = kInfinity;  // "max"
    std::from_chars(value.data(), value.data() + value.size(), number);
    properties.push_back({name, number});
  }
  return properties;
}

Result<systemd::Properties> ControllerProperties(const std::set<std::string>& controllers,
                                                 const std::string& cpus) {
  systemd::Properties properties;
  for (const std::string& name : controllers) {
    // Accounting alone brings no controller for CPUs on v2; the weight is the default one.
    if (name == "cpu") properties.push_back({"CPUWeight", std::uint64_t{100}});
    if (name == "memory") properties.push_back({"MemoryAccounting", true});
    if (name == "pids") properties.push_back({"TasksAccounting", true});
    if (name == "io") properties.push_back({"IOAccounting", true});
    if (name == "cpuset") {
      properties.push_back({"AllowedCPUs", CRISP_TRY(Bits(cpus, "cpuset.cpus.effective"))});
    }
  }
  return properties;
}

}  // namespace crisp::rund
