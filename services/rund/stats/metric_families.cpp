#include "services/rund/stats/metric_families.h"

#include <array>
#include <map>
#include <string_view>
#include <utility>

#include "services/rund/stats/device_names.h"
#include "services/rund/stats/metric_table.h"

namespace crisp::rund {
namespace {

namespace cri = runtime::v1;

constexpr std::array<std::string_view, 6> kBaseLabels = {"container", "id",        "image",
                                                         "name",      "namespace", "pod"};

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
void Emit(MetricOf of, const MetricSubject& subject,
          const std::array<std::string, kBaseLabels.size()>& base, Out* out) {
  MetricValues values;
  for (const MetricFamily& family : MetricFamilies()) {
    if ((family.of & of) == 0) continue;
    values.clear();
    family.values(subject, values);
    for (MetricValue& value : values) {
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
  const MetricSubject subject{
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
  Emit(kOfContainer, subject,
       {record.metadata().name(), record.cgroup_path(), image, record.id(),
        pod.record->metadata().namespace_(), pod.record->metadata().name()},
       out);
}

}  // namespace

cri::ListMetricDescriptorsResponse MetricDescriptors() {
  cri::ListMetricDescriptorsResponse response;
  for (const MetricFamily& family : MetricFamilies()) {
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
    const MetricSubject subject{.at = pod.at,
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
    Emit(kOfPod, subject,
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
