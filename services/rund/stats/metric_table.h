#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cri/v1/api.pb.h"
#include "services/rund/stats/collector.h"

// What the metrics are: one row for each family, with how its values come out of a sample.
namespace crisp::rund {

/// A container or a pod, and what was read of it. Pointers are null for what it has not got.
struct MetricSubject {
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

struct MetricValue {
  std::uint64_t value = 0;
  std::vector<std::string> labels;  // after the base labels
};
using MetricValues = std::vector<MetricValue>;

enum MetricOf : unsigned { kOfContainer = 1, kOfPod = 2, kOfBoth = 3 };

struct MetricFamily {
  std::string_view name;
  std::string_view help;
  runtime::v1::MetricType type = runtime::v1::GAUGE;
  std::vector<std::string_view> labels;
  MetricOf of = kOfBoth;
  void (*values)(const MetricSubject& subject, MetricValues& out) = nullptr;
};

/// In an order that does not change.
const std::vector<MetricFamily>& MetricFamilies();

}  // namespace crisp::rund
