#include "services/rund/stats/metric_table.h"

#include <utility>

namespace crisp::rund {
namespace {

namespace cri = runtime::v1;

using Subject = MetricSubject;
using Values = MetricValues;
using Family = MetricFamily;

constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
constexpr std::uint64_t kUsPerSecond = 1'000'000;

/// A family of one value without labels of its own.
template <auto Get>
void One(const Subject& subject, Values& out) {
  out.push_back({Get(subject), {}});
}

std::uint64_t Stalled(const std::optional<Pressure>& pressure, PressureLine Pressure::*line) {
  return pressure ? ((*pressure).*line).total_us / kUsPerSecond : 0;
}

template <std::uint64_t DeviceIo::*Field>
void PerDevice(const Subject& subject, Values& out) {
  for (std::size_t i = 0; i < subject.details.io.size(); ++i) {
    out.push_back({subject.details.io[i].*Field, {subject.device_names[i]}});
  }
}

/// cAdvisor has a name for it, and the kernel no number: see AddUntold.
void ZeroOnDevice(const Subject& subject, Values& out) {
  out.push_back({0, {subject.file_system.device}});
}

/// The kernel counts bytes; a sector is 512 of them, whatever the device says.
template <std::uint64_t DeviceIo::*Bytes>
void SectorsPerDevice(const Subject& subject, Values& out) {
  constexpr std::uint64_t kSector = 512;
  // Who reads the descriptors expects a value even where nothing was read yet.
  if (subject.details.io.empty()) return ZeroOnDevice(subject, out);
  for (std::size_t i = 0; i < subject.details.io.size(); ++i) {
    out.push_back({subject.details.io[i].*Bytes / kSector, {subject.device_names[i]}});
  }
}

template <std::uint64_t InterfaceUsage::*Field>
void PerInterface(const Subject& subject, Values& out) {
  if (subject.network == nullptr) return;
  for (const InterfaceUsage& one : *subject.network) out.push_back({one.*Field, {one.name}});
}

template <std::uint64_t HugetlbUsage::*Field>
void PerPageSize(const Subject& subject, Values& out) {
  for (const HugetlbUsage& one : subject.details.hugetlb) {
    out.push_back({one.*Field, {one.page_size}});
  }
}

void AddCpu(std::vector<Family>& out) {
  const auto add = [&out](std::string_view name, std::string_view help, auto values) {
    out.push_back({name, help, cri::COUNTER, {}, kOfBoth, values});
  };
  add("container_cpu_user_seconds_total", "Cumulative user CPU time consumed, in seconds.",
      One<[](const Subject& s) { return s.details.cpu_user_ns / kNsPerSecond; }>);
  add("container_cpu_system_seconds_total", "Cumulative system CPU time consumed, in seconds.",
      One<[](const Subject& s) { return s.details.cpu_system_ns / kNsPerSecond; }>);
  out.push_back({"container_cpu_usage_seconds_total",
                 "Cumulative CPU time consumed, in seconds.",
                 cri::COUNTER,
                 {"cpu"},
                 kOfBoth,
                 [](const Subject& s, Values& values) {
                   values.push_back({s.usage.cpu_ns.value_or(0) / kNsPerSecond, {"total"}});
                 }});
  add("container_cpu_cfs_periods_total", "Number of elapsed enforcement periods.",
      One<[](const Subject& s) { return s.details.cfs_periods; }>);
  add("container_cpu_cfs_throttled_periods_total", "Number of throttled enforcement periods.",
      One<[](const Subject& s) { return s.details.cfs_throttled_periods; }>);
  add("container_cpu_cfs_throttled_seconds_total", "Time that it has been throttled, in seconds.",
      One<[](const Subject& s) { return s.details.cfs_throttled_ns / kNsPerSecond; }>);
}

void AddMemory(std::vector<Family>& out) {
  const auto add = [&out](std::string_view name, std::string_view help, auto values,
                          cri::MetricType type = cri::GAUGE) {
    out.push_back({name, help, type, {}, kOfBoth, values});
  };
  add("container_memory_cache", "Page cache, in bytes.",
      One<[](const Subject& s) { return s.usage.cache_bytes; }>);
  add("container_memory_rss", "Anonymous memory, in bytes.",
      One<[](const Subject& s) { return s.usage.rss_bytes; }>);
  add("container_memory_kernel_usage", "Kernel memory, in bytes.",
      One<[](const Subject& s) { return s.details.memory_kernel_bytes; }>);
  add("container_memory_mapped_file", "Memory mapped files, in bytes.",
      One<[](const Subject& s) { return s.usage.mapped_bytes; }>);
  add("container_memory_swap", "Swap in use, in bytes.",
      One<[](const Subject& s) { return s.usage.swap_bytes.value_or(0); }>);
  add("container_memory_usage_bytes", "Memory in use, whenever it was used last, in bytes.",
      One<[](const Subject& s) { return s.usage.memory_bytes.value_or(0); }>);
  add("container_memory_max_usage_bytes", "The most memory that was in use, in bytes.",
      One<[](const Subject& s) { return s.details.memory_max_usage_bytes; }>);
  add("container_memory_working_set_bytes", "Memory that cannot be taken back at once, in bytes.",
      One<[](const Subject& s) { return s.usage.WorkingSet(); }>);
  add("container_memory_total_active_file_bytes", "Page cache used lately, in bytes.",
      One<[](const Subject& s) { return s.usage.active_file_bytes; }>);
  add("container_memory_total_inactive_file_bytes", "Page cache not used lately, in bytes.",
      One<[](const Subject& s) { return s.usage.inactive_file_bytes; }>);
  add("container_memory_failcnt", "How often memory hit its limit.",
      One<[](const Subject& s) { return s.details.memory_limit_hits; }>, cri::COUNTER);
  add("container_oom_events_total", "Processes killed for want of memory.",
      One<[](const Subject& s) { return s.details.oom_kills; }>, cri::COUNTER);
  out.push_back({"container_memory_failures_total",
                 "Cumulative count of page faults.",
                 cri::COUNTER,
                 {"failure_type", "scope"},
                 kOfBoth,
                 [](const Subject& s, Values& values) {
                   values.push_back({s.usage.own_page_faults, {"pgfault", "container"}});
                   values.push_back({s.usage.page_faults, {"pgfault", "hierarchy"}});
                   values.push_back({s.usage.own_major_page_faults, {"pgmajfault", "container"}});
                   values.push_back({s.usage.major_page_faults, {"pgmajfault", "hierarchy"}});
                 }});
  out.push_back({"container_hugetlb_usage_bytes",
                 "Huge pages in use, in bytes.",
                 cri::GAUGE,
                 {"pagesize"},
                 kOfBoth,
                 PerPageSize<&HugetlbUsage::usage_bytes>});
  out.push_back({"container_hugetlb_max_usage_bytes",
                 "The most huge pages in use, in bytes.",
                 cri::GAUGE,
                 {"pagesize"},
                 kOfBoth,
                 PerPageSize<&HugetlbUsage::max_usage_bytes>});
}

void AddPressure(std::vector<Family>& out) {
  const auto add = [&out](std::string_view name, std::string_view help, auto values) {
    out.push_back({name, help, cri::COUNTER, {}, kOfBoth, values});
  };
  add("container_pressure_cpu_waiting_seconds_total", "Time that some task waited for CPU.",
      One<[](const Subject& s) { return Stalled(s.usage.cpu_pressure, &Pressure::some); }>);
  add("container_pressure_cpu_stalled_seconds_total", "Time that all tasks waited for CPU.",
      One<[](const Subject& s) { return Stalled(s.usage.cpu_pressure, &Pressure::full); }>);
  add("container_pressure_memory_waiting_seconds_total", "Time that some task waited for memory.",
      One<[](const Subject& s) { return Stalled(s.usage.memory_pressure, &Pressure::some); }>);
  add("container_pressure_memory_stalled_seconds_total", "Time that all tasks waited for memory.",
      One<[](const Subject& s) { return Stalled(s.usage.memory_pressure, &Pressure::full); }>);
  add("container_pressure_io_waiting_seconds_total", "Time that some task waited for I/O.",
      One<[](const Subject& s) { return Stalled(s.usage.io_pressure, &Pressure::some); }>);
  add("container_pressure_io_stalled_seconds_total", "Time that all tasks waited for I/O.",
      One<[](const Subject& s) { return Stalled(s.usage.io_pressure, &Pressure::full); }>);
}

void AddDisk(std::vector<Family>& out) {
  const auto usage = [&out](std::string_view name, std::string_view help, auto values) {
    out.push_back({name, help, cri::GAUGE, {"device"}, kOfContainer, values});
  };
  usage("container_fs_usage_bytes", "Bytes that the writable layer holds on its file system.",
        [](const Subject& s, Values& values) {
          values.push_back({s.disk == nullptr ? 0 : s.disk->bytes, {s.file_system.device}});
        });
  usage("container_fs_limit_bytes", "Size of the file system of the writable layer, in bytes.",
        [](const Subject& s, Values& values) {
          values.push_back({s.file_system.size_bytes, {s.file_system.device}});
        });
  usage("container_fs_inodes_free", "Free inodes of the file system of the writable layer.",
        [](const Subject& s, Values& values) {
          values.push_back({s.file_system.free_inodes, {s.file_system.device}});
        });
  usage("container_fs_inodes_total", "Inodes of the file system of the writable layer.",
        [](const Subject& s, Values& values) {
          values.push_back({s.file_system.inodes, {s.file_system.device}});
        });
  const auto io = [&out](std::string_view name, std::string_view help, auto values) {
    out.push_back({name, help, cri::COUNTER, {"device"}, kOfBoth, values});
  };
  io("container_fs_reads_bytes_total", "Cumulative count of bytes read.",
     PerDevice<&DeviceIo::read_bytes>);
  io("container_fs_reads_total", "Cumulative count of reads completed.",
     PerDevice<&DeviceIo::reads>);
  io("container_fs_sector_reads_total", "Cumulative count of sectors read.",
     SectorsPerDevice<&DeviceIo::read_bytes>);
  io("container_fs_sector_writes_total", "Cumulative count of sectors written.",
     SectorsPerDevice<&DeviceIo::write_bytes>);
  io("container_fs_writes_bytes_total", "Cumulative count of bytes written.",
     PerDevice<&DeviceIo::write_bytes>);
  io("container_fs_writes_total", "Cumulative count of writes completed.",
     PerDevice<&DeviceIo::writes>);
  out.push_back({"container_blkio_device_usage_total",
                 "Bytes read from and written to a block device.",
                 cri::COUNTER,
                 {"device", "major", "minor", "operation"},
                 kOfBoth,
                 [](const Subject& s, Values& values) {
                   for (std::size_t i = 0; i < s.details.io.size(); ++i) {
                     const DeviceIo& one = s.details.io[i];
                     const std::size_t colon = one.device.find(':');
                     const std::string major = one.device.substr(0, colon);
                     const std::string minor = one.device.substr(colon + 1);
                     const std::string& name = s.device_names[i];
                     values.push_back({one.read_bytes, {name, major, minor, "Read"}});
                     values.push_back({one.write_bytes, {name, major, minor, "Write"}});
                   }
                 }});
}

/// What no cgroup tells of a block device: how long its I/O took, how much of it was merged or is
/// under way. (v1 does with the CFQ of old, or BFQ built for debugging.) Such a container is 0 in
/// cAdvisor too, for the device of its writable layer; dashboards that add them up go on working.
void AddUntold(std::vector<Family>& out) {
  const auto add = [&out](std::string_view name, std::string_view help,
                          cri::MetricType type = cri::COUNTER) {
    out.push_back({name, help, type, {"device"}, kOfContainer, ZeroOnDevice});
  };
  add("container_fs_io_current", "I/O under way; the kernel does not tell.", cri::GAUGE);
  add("container_fs_io_time_seconds_total", "Time spent doing I/O; the kernel does not tell.");
  add("container_fs_io_time_weighted_seconds_total",
      "Weighted time spent doing I/O; the kernel does not tell.");
  add("container_fs_read_seconds_total", "Time spent reading; the kernel does not tell.");
  add("container_fs_write_seconds_total", "Time spent writing; the kernel does not tell.");
  add("container_fs_reads_merged_total", "Merged reads; the kernel does not tell.");
  add("container_fs_writes_merged_total", "Merged writes; the kernel does not tell.");
}

void AddNetwork(std::vector<Family>& out) {
  const auto add = [&out](std::string_view name, std::string_view help, auto values) {
    out.push_back({name, help, cri::COUNTER, {"interface"}, kOfPod, values});
  };
  add("container_network_receive_bytes_total", "Cumulative count of bytes received.",
      PerInterface<&InterfaceUsage::rx_bytes>);
  add("container_network_receive_packets_total", "Cumulative count of packets received.",
      PerInterface<&InterfaceUsage::rx_packets>);
  add("container_network_receive_packets_dropped_total",
      "Cumulative count of packets dropped while receiving.",
      PerInterface<&InterfaceUsage::rx_dropped>);
  add("container_network_receive_errors_total", "Cumulative count of errors while receiving.",
      PerInterface<&InterfaceUsage::rx_errors>);
  add("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted.",
      PerInterface<&InterfaceUsage::tx_bytes>);
  add("container_network_transmit_packets_total", "Cumulative count of packets transmitted.",
      PerInterface<&InterfaceUsage::tx_packets>);
  add("container_network_transmit_packets_dropped_total",
      "Cumulative count of packets dropped while transmitting.",
      PerInterface<&InterfaceUsage::tx_dropped>);
  add("container_network_transmit_errors_total", "Cumulative count of errors while transmitting.",
      PerInterface<&InterfaceUsage::tx_errors>);
}

void AddProcesses(std::vector<Family>& out) {
  const auto add = [&out](std::string_view name, std::string_view help, auto values) {
    out.push_back({name, help, cri::GAUGE, {}, kOfBoth, values});
  };
  add("container_processes", "Number of processes.",
      One<[](const Subject& s) { return s.process_count; }>);
  add("container_threads", "Number of threads.",
      One<[](const Subject& s) { return s.usage.tasks.value_or(s.processes.threads); }>);
  add("container_threads_max", "The most threads that it may have; 0 is without limit.",
      One<[](const Subject& s) { return s.details.tasks_limit.value_or(0); }>);
  add("container_file_descriptors", "Number of open file descriptors.",
      One<[](const Subject& s) { return s.processes.file_descriptors; }>);
  add("container_sockets", "Number of open sockets.",
      One<[](const Subject& s) { return s.processes.sockets; }>);
  out.push_back({"container_ulimits_soft",
                 "Soft limits of the first process.",
                 cri::GAUGE,
                 {"ulimit"},
                 kOfContainer,
                 [](const Subject& s, Values& values) {
                   values.push_back({s.processes.max_open_files, {"max_open_files"}});
                 }});
  // By the first thread of each process, where cAdvisor (when it is told to look) asks taskstats
  // for all threads, which knows v1 only. Nobody can tell who waits for I/O among the
  // uninterruptible.
  out.push_back({"container_tasks_state",
                 "Number of processes in a state.",
                 cri::GAUGE,
                 {"state"},
                 kOfBoth,
                 [](const Subject& s, Values& values) {
                   values.push_back({s.processes.states.sleeping, {"sleeping"}});
                   values.push_back({s.processes.states.running, {"running"}});
                   values.push_back({s.processes.states.stopped, {"stopped"}});
                   values.push_back({s.processes.states.uninterruptible, {"uninterruptible"}});
                   values.push_back({0, {"iowaiting"}});
                 }});
  // A kubelet's cAdvisor runs without its load reader, so that this is 0 there as well. It has no
  // container_cpu_schedstat_*: those are off in a kubelet, and the kernel keeps none for a cgroup.
  add("container_cpu_load_average_10s", "Load over the last 10 seconds; nobody counts it.",
      One<[](const Subject&) { return std::uint64_t{0}; }>);
  add("container_start_time_seconds", "When it was started, in seconds since the epoch.",
      One<[](const Subject& s) {
        return static_cast<std::uint64_t>(s.started_at) / kNsPerSecond;
      }>);
  add("container_last_seen", "When it was seen last, in seconds since the epoch.",
      One<[](const Subject& s) { return static_cast<std::uint64_t>(s.at) / kNsPerSecond; }>);
}

void AddSpec(std::vector<Family>& out) {
  const auto add = [&out](std::string_view name, std::string_view help, auto values) {
    out.push_back({name, help, cri::GAUGE, {}, kOfBoth, values});
  };
  add("container_spec_cpu_period", "CPU period, in microseconds.",
      One<[](const Subject& s) { return s.details.cpu_period_us; }>);
  add("container_spec_cpu_quota", "CPU quota, in microseconds; 0 is without limit.",
      One<[](const Subject& s) { return s.details.cpu_quota_us; }>);
  add("container_spec_cpu_shares", "CPU shares.",
      One<[](const Subject& s) { return s.details.cpu_shares; }>);
  add("container_spec_memory_limit_bytes", "Memory limit, in bytes; 0 is without limit.",
      One<[](const Subject& s) { return s.usage.memory_limit_bytes.value_or(0); }>);
  add("container_spec_memory_reservation_limit_bytes",
      "Memory that is reserved, in bytes; 0 is none.",
      One<[](const Subject& s) { return s.details.memory_reservation_bytes; }>);
  add("container_spec_memory_swap_limit_bytes",
      "Limit of memory and swap together, in bytes; 0 is without limit.",
      One<[](const Subject& s) { return s.details.memory_swap_limit_bytes; }>);
}

std::vector<Family> MakeFamilies() {
  std::vector<Family> families;
  AddCpu(families);
  AddMemory(families);
  AddPressure(families);
  AddDisk(families);
  AddUntold(families);
  AddNetwork(families);
  AddProcesses(families);
  AddSpec(families);
  return families;
}

}  // namespace

const std::vector<MetricFamily>& MetricFamilies() {
  static const std::vector<MetricFamily> kFamilies = MakeFamilies();
  return kFamilies;
}

}  // namespace crisp::rund
