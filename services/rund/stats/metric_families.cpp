#include "services/rund/stats/metric_families.h"

#include <array>
#include <map>
#include <string_view>
#include <utility>

#include "services/rund/stats/device_names.h"

namespace crisp::rund {
namespace {

namespace cri = runtime::v1;

constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
constexpr std::uint64_t kUsPerSecond = 1'000'000;
constexpr std::array<std::string_view, 6> kBaseLabels = {"container", "id",        "image",
                                                         "name",      "namespace", "pod"};

/// A container or a pod, and what was read of it. Pointers are null for what it has not got.
struct Subject {
  std::int64_t at = 0;
  std::int64_t started_at = 0;
  const CgroupUsage& usage;
  const CgroupDetails& details;
  const ProcessUsage& processes;
  std::uint64_t process_count = 0;
  const FileSystem& file_system;
  const std::vector<std::string>& device_names;  // one for each of details.io
  const DiskUsage* disk = nullptr;
  const std::vector<InterfaceUsage>* network = nullptr;
};

struct Value {
  std::uint64_t value = 0;
  std::vector<std::string> labels;  // after the base labels
};
using Values = std::vector<Value>;

enum Of : unsigned { kContainer = 1, kPod = 2, kBoth = 3 };

struct Family {
  std::string_view name;
  std::string_view help;
  cri::MetricType type = cri::GAUGE;
  std::vector<std::string_view> labels;
  Of of = kBoth;
  void (*values)(const Subject& subject, Values& out) = nullptr;
};

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
    out.push_back({name, help, cri::COUNTER, {}, kBoth, values});
  };
  add("container_cpu_user_seconds_total", "Cumulative user CPU time consumed, in seconds.",
      One<[](const Subject& s) { return s.details.cpu_user_ns / kNsPerSecond; }>);
  add("container_cpu_system_seconds_total", "Cumulative system CPU time consumed, in seconds.",
      One<[](const Subject& s) { return s.details.cpu_system_ns / kNsPerSecond; }>);
  out.push_back({"container_cpu_usage_seconds_total",
                 "Cumulative CPU time consumed, in seconds.",
                 cri::COUNTER,
                 {"cpu"},
                 kBoth,
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
    out.push_back({name, help, type, {}, kBoth, values});
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
                 kBoth,
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
                 kBoth,
                 PerPageSize<&HugetlbUsage::usage_bytes>});
  out.push_back({"container_hugetlb_max_usage_bytes",
                 "The most huge pages in use, in bytes.",
                 cri::GAUGE,
                 {"pagesize"},
                 kBoth,
                 PerPageSize<&HugetlbUsage::max_usage_bytes>});
}

void AddPressure(std::vector<Family>& out) {
  const auto add = [&out](std::string_view name, std::string_view help, auto values) {
    out.push_back({name, help, cri::COUNTER, {}, kBoth, values});
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
    out.push_back({name, help, cri::GAUGE, {"device"}, kContainer, values});
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
    out.push_back({name, help, cri::COUNTER, {"device"}, kBoth, values});
  };
  io("container_fs_reads_bytes_total", "Cumulative count of bytes read.",
     PerDevice<&DeviceIo::read_bytes>);
  io("container_fs_reads_total", "Cumulative count of reads completed.",
     PerDevice<&DeviceIo::reads>);
  io("container_fs_writes_bytes_total", "Cumulative count of bytes written.",
     PerDevice<&DeviceIo::write_bytes>);
  io("container_fs_writes_total", "Cumulative count of writes completed.",
     PerDevice<&DeviceIo::writes>);
  out.push_back({"container_blkio_device_usage_total",
                 "Bytes read from and written to a block device.",
                 cri::COUNTER,
                 {"device", "major", "minor", "operation"},
                 kBoth,
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

void AddNetwork(std::vector<Family>& out) {
  const auto add = [&out](std::string_view name, std::string_view help, auto values) {
    out.push_back({name, help, cri::COUNTER, {"interface"}, kPod, values});
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
    out.push_back({name, help, cri::GAUGE, {}, kBoth, values});
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
                 kContainer,
                 [](const Subject& s, Values& values) {
                   values.push_back({s.processes.max_open_files, {"max_open_files"}});
                 }});
  add("container_start_time_seconds", "When it was started, in seconds since the epoch.",
      One<[](const Subject& s) {
        return static_cast<std::uint64_t>(s.started_at) / kNsPerSecond;
      }>);
  add("container_last_seen", "When it was seen last, in seconds since the epoch.",
      One<[](const Subject& s) { return static_cast<std::uint64_t>(s.at) / kNsPerSecond; }>);
}

void AddSpec(std::vector<Family>& out) {
  const auto add = [&out](std::string_view name, std::string_view help, auto values) {
    out.push_back({name, help, cri::GAUGE, {}, kBoth, values});
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
  AddNetwork(families);
  AddProcesses(families);
  AddSpec(families);
  return families;
}

const std::vector<Family>& Families() {
  static const std::vector<Family> families = MakeFamilies();
  return families;
}

/// Answers each device's name, asked of the kernel once.
class DeviceNames {
 public:
  std::vector<std::string> Of(const std::vector<DeviceIo>& devices) {
    std::vector<std::string> names;
    for (const DeviceIo& device : devices) {
      const auto [known, fresh] = known_.try_emplace(device.device);
      if (fresh) known->second = DeviceName(device.device);
      names.push_back(known->second);
    }
    return names;
  }

 private:
  std::map<std::string, std::string> known_;
};

template <typename Out>
void Emit(Of of, const Subject& subject, const std::array<std::string, kBaseLabels.size()>& base,
          Out* out) {
  Values values;
  for (const Family& family : Families()) {
    if ((family.of & of) == 0) continue;
    values.clear();
    family.values(subject, values);
    for (Value& value : values) {
      cri::Metric* metric = out->add_metrics();
      metric->set_name(std::string(family.name));
      metric->set_timestamp(subject.at);
      metric->set_metric_type(family.type);
      for (const std::string& label : base) metric->add_label_values(label);
      for (std::string& label : value.labels) metric->add_label_values(std::move(label));
      metric->mutable_value()->set_value(value.value);
    }
  }
}

void EmitContainer(const Sweep& sweep, const PodSample& pod, const ContainerSample& container,
                   DeviceNames& devices, cri::ContainerMetrics* out) {
  const ContainerRecord& record = *container.record;
  const auto names = devices.Of(container.details.io);
  const Subject subject{
      .at = container.at,
      .started_at = record.started_at() != 0 ? record.started_at() : record.created_at(),
      .usage = container.usage,
      .details = container.details,
      .processes = container.processes,
      .process_count = container.processes.count,
      .file_system = sweep.file_system,
      .device_names = names,
      .disk = container.disk ? &*container.disk : nullptr};
  const std::string& image =
      record.config().image().user_specified_image().empty()
          ? (record.image_name().empty() ? record.image_ref() : record.image_name())
          : record.config().image().user_specified_image();
  out->set_container_id(record.id());
  Emit(kContainer, subject,
       {record.metadata().name(), record.cgroup_path(), image, record.id(),
        pod.record->metadata().namespace_(), pod.record->metadata().name()},
       out);
}

}  // namespace

cri::ListMetricDescriptorsResponse MetricDescriptors() {
  cri::ListMetricDescriptorsResponse response;
  for (const Family& family : Families()) {
    cri::MetricDescriptor* descriptor = response.add_descriptors();
    descriptor->set_name(std::string(family.name));
    descriptor->set_help(std::string(family.help));
    for (const std::string_view label : kBaseLabels) descriptor->add_label_keys(std::string(label));
    for (const std::string_view label : family.labels) {
      descriptor->add_label_keys(std::string(label));
    }
  }
  return response;
}

cri::ListPodSandboxMetricsResponse MetricsOf(const Sweep& sweep) {
  cri::ListPodSandboxMetricsResponse response;
  DeviceNames devices;
  for (const PodSample& pod : sweep.pods) {
    const PodRecord& record = *pod.record;
    const auto names = devices.Of(pod.details.io);
    const Subject subject{.at = pod.at,
                          .started_at = record.created_at(),
                          .usage = pod.usage,
                          .details = pod.details,
                          .processes = pod.processes,
                          .process_count = pod.process_count,
                          .file_system = sweep.file_system,
                          .device_names = names,
                          .network = pod.network ? &*pod.network : nullptr};
    cri::PodSandboxMetrics* out = response.add_pod_metrics();
    out->set_pod_sandbox_id(record.id());
    Emit(kPod, subject,
         {"", record.cgroup_parent(), "", record.id(), record.metadata().namespace_(),
          record.metadata().name()},
         out);
    for (const ContainerSample* container : pod.containers) {
      EmitContainer(sweep, pod, *container, devices, out->add_container_metrics());
    }
  }
  return response;
}

}  // namespace crisp::rund
