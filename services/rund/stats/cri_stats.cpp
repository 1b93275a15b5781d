#include "services/rund/stats/cri_stats.h"

#include <algorithm>

namespace crisp::rund {
namespace {

namespace cri = runtime::v1;

// The CRI counts pressure in nanoseconds, the kernel in microseconds.
constexpr std::uint64_t kNsPerUs = 1000;
constexpr std::string_view kDefaultInterface = "eth0";

void Fill(const PressureLine& line, cri::PsiData* out) {
  out->set_total(line.total_us * kNsPerUs);
  out->set_avg10(line.avg10);
  out->set_avg60(line.avg60);
  out->set_avg300(line.avg300);
}

template <typename Usage>
void FillPressure(const std::optional<Pressure>& pressure, Usage* out) {
  if (!pressure) return;
  Fill(pressure->some, out->mutable_psi()->mutable_some());
  Fill(pressure->full, out->mutable_psi()->mutable_full());
}

void FillCpu(std::int64_t at, const CgroupUsage& usage,
             const std::optional<std::uint64_t>& nano_cores, cri::CpuUsage* out) {
  out->set_timestamp(at);
  out->mutable_usage_core_nano_seconds()->set_value(usage.cpu_ns.value_or(0));
  if (nano_cores) out->mutable_usage_nano_cores()->set_value(*nano_cores);
  FillPressure(usage.cpu_pressure, out);
}

void FillMemory(std::int64_t at, const CgroupUsage& usage, cri::MemoryUsage* out) {
  out->set_timestamp(at);
  out->mutable_working_set_bytes()->set_value(usage.WorkingSet());
  if (const auto available = usage.AvailableMemory()) {
    out->mutable_available_bytes()->set_value(*available);
  }
  out->mutable_usage_bytes()->set_value(usage.memory_bytes.value_or(0));
  out->mutable_rss_bytes()->set_value(usage.rss_bytes);
  out->mutable_page_faults()->set_value(usage.page_faults);
  out->mutable_major_page_faults()->set_value(usage.major_page_faults);
  FillPressure(usage.memory_pressure, out);
}

void FillSwap(std::int64_t at, const CgroupUsage& usage, std::uint64_t free_swap,
              cri::SwapUsage* out) {
  const std::uint64_t used = usage.swap_bytes.value_or(0);
  out->set_timestamp(at);
  out->mutable_swap_usage_bytes()->set_value(used);
  // Without a limit of its own it may have what the node still has.
  const std::uint64_t limit = usage.swap_limit_bytes.value_or(used + free_swap);
  out->mutable_swap_available_bytes()->set_value(limit > used ? limit - used : 0);
}

void FillIo(std::int64_t at, const CgroupUsage& usage, cri::IoUsage* out) {
  out->set_timestamp(at);
  FillPressure(usage.io_pressure, out);
}

template <typename Attributes>
void FillConfig(const auto& record, Attributes* out) {
  out->set_id(record.id());
  *out->mutable_metadata() = record.metadata();
  *out->mutable_labels() = record.config().labels();
  *out->mutable_annotations() = record.config().annotations();
}

void FillDisk(const std::optional<DiskUsage>& disk, const std::string& mountpoint,
              cri::ContainerStats& out) {
  if (!disk) return;
  cri::FilesystemUsage* layer = out.mutable_writable_layer();
  layer->set_timestamp(disk->at);
  layer->mutable_fs_id()->set_mountpoint(mountpoint);
  layer->mutable_used_bytes()->set_value(disk->bytes);
  layer->mutable_inodes_used()->set_value(disk->inodes);
}

void FillInterface(const InterfaceUsage& usage, cri::NetworkInterfaceUsage* out) {
  out->set_name(usage.name);
  out->mutable_rx_bytes()->set_value(usage.rx_bytes);
  out->mutable_rx_errors()->set_value(usage.rx_errors);
  out->mutable_tx_bytes()->set_value(usage.tx_bytes);
  out->mutable_tx_errors()->set_value(usage.tx_errors);
}

void FillNetwork(const PodSample& pod, cri::NetworkUsage* out) {
  out->set_timestamp(pod.at);
  for (const InterfaceUsage& usage : *pod.network) {
    const bool is_default = usage.name == kDefaultInterface;
    FillInterface(usage, is_default ? out->mutable_default_interface() : out->add_interfaces());
  }
}

template <typename Selector>
bool HasLabels(const Selector& selector, const Selector& labels) {
  return std::all_of(selector.begin(), selector.end(), [&labels](const auto& wanted) {
    const auto found = labels.find(wanted.first);
    return found != labels.end() && found->second == wanted.second;
  });
}

}  // namespace

cri::ContainerStats StatsOf(const Sweep& sweep, const ContainerSample& container) {
  cri::ContainerStats stats;
  FillConfig(*container.record, stats.mutable_attributes());
  FillCpu(container.at, container.usage, container.nano_cores, stats.mutable_cpu());
  FillMemory(container.at, container.usage, stats.mutable_memory());
  if (container.usage.swap_bytes) {
    FillSwap(container.at, container.usage, sweep.free_swap_bytes, stats.mutable_swap());
  }
  FillIo(container.at, container.usage, stats.mutable_io());
  FillDisk(container.disk, sweep.file_system.mountpoint, stats);
  return stats;
}

cri::ContainerStats StatsOfEnded(const ContainerRecord& container,
                                 const std::optional<DiskUsage>& disk,
                                 const std::string& mountpoint) {
  cri::ContainerStats stats;
  FillConfig(container, stats.mutable_attributes());
  FillDisk(disk, mountpoint, stats);
  return stats;
}

cri::PodSandboxStats StatsOf(const Sweep& sweep, const PodSample& pod) {
  cri::PodSandboxStats stats;
  FillConfig(*pod.record, stats.mutable_attributes());
  cri::LinuxPodSandboxStats* out = stats.mutable_linux();
  FillCpu(pod.at, pod.usage, pod.nano_cores, out->mutable_cpu());
  FillMemory(pod.at, pod.usage, out->mutable_memory());
  if (pod.network) FillNetwork(pod, out->mutable_network());
  out->mutable_process()->set_timestamp(pod.at);
  out->mutable_process()->mutable_process_count()->set_value(pod.process_count);
  FillIo(pod.at, pod.usage, out->mutable_io());
  for (const ContainerSample* container : pod.containers) {
    *out->add_containers() = StatsOf(sweep, *container);
  }
  return stats;
}

cri::PodSandboxStats StatsOfStopped(const PodRecord& pod) {
  cri::PodSandboxStats stats;
  FillConfig(pod, stats.mutable_attributes());
  return stats;
}

bool Matches(const cri::ContainerStatsFilter& filter, const ContainerRecord& container) {
  return container.id().starts_with(filter.id()) &&
         container.pod_id().starts_with(filter.pod_sandbox_id()) &&
         HasLabels(filter.label_selector(), container.config().labels());
}

bool Matches(const cri::PodSandboxStatsFilter& filter, const PodRecord& pod) {
  return pod.id().starts_with(filter.id()) &&
         HasLabels(filter.label_selector(), pod.config().labels());
}

}  // namespace crisp::rund
