#include "services/crispctl/top.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

using runtime::v1::ContainerStats;

struct Usage {
  std::string name;
  std::string id;
  double cores = -1;  // below 0: not known
  std::uint64_t memory = 0;
  std::vector<Usage> parts;
};

std::string Percent(double cores) { return cores < 0 ? "-" : fmt::format("{:.1f}%", cores * 100); }

void Sort(std::vector<Usage>& all) {
  std::sort(all.begin(), all.end(), [](const Usage& a, const Usage& b) {
    return std::tie(b.cores, b.memory, a.name) < std::tie(a.cores, a.memory, b.name);
  });
}

void AddTo(Usage& sum, const Usage& part) {
  if (part.cores >= 0) sum.cores = std::max(sum.cores, 0.0) + part.cores;
  sum.memory += part.memory;
}

void AddRow(Table& table, const Usage& usage, std::string_view indent) {
  table.Add({fmt::format("{}{}", indent, usage.name), Percent(usage.cores), Size(usage.memory),
             ShortId(usage.id)});
}

}  // namespace

double Top::Cores(const ContainerStats& stats) {
  const auto& cpu = stats.cpu();
  const std::int64_t now = cpu.timestamp();
  const std::uint64_t used = cpu.usage_core_nano_seconds().value();
  const auto [known, is_new] = before_.try_emplace(stats.attributes().id(), now, used);
  const auto [then, used_then] = std::exchange(known->second, {now, used});
  if (!is_new && now > then && used >= used_then) {
    return static_cast<double>(used - used_then) / static_cast<double>(now - then);
  }
  if (!cpu.has_usage_nano_cores()) return -1;
  return static_cast<double>(cpu.usage_nano_cores().value()) / 1e9;
}

std::string Top::Look(const runtime::v1::ListContainerStatsResponse& stats,
                      const runtime::v1::ListPodSandboxResponse& pods,
                      const runtime::v1::ListContainersResponse& containers) {
  std::map<std::string, std::string> pod_of;
  for (const auto& one : containers.containers()) pod_of[one.id()] = one.pod_sandbox_id();
  std::map<std::string, Usage> by_pod;
  for (const auto& pod : pods.items()) {
    by_pod[pod.id()] = {fmt::format("{}/{}", pod.metadata().namespace_(), pod.metadata().name()),
                        pod.id()};
  }
  Usage all{.name = "", .id = ""};
  for (const ContainerStats& one : stats.stats()) {
    const std::string& id = one.attributes().id();
    const Usage usage{one.attributes().metadata().name(),
                      id,
                      Cores(one),
                      one.memory().working_set_bytes().value(),
                      {}};
    const auto pod = by_pod.find(pod_of[id]);
    if (pod == by_pod.end()) continue;  // gone meanwhile
    AddTo(pod->second, usage);
    AddTo(all, usage);
    pod->second.parts.push_back(usage);
  }
  std::vector<Usage> rows;
  for (auto& [id, pod] : by_pod) {
    if (!pod.parts.empty()) rows.push_back(std::move(pod));
  }
  Sort(rows);
  Table table({"POD / CONTAINER", "CPU", "MEMORY", "ID"});
  for (Usage& pod : rows) {
    AddRow(table, pod, "");
    Sort(pod.parts);
    if (pods_only_) continue;
    for (const Usage& part : pod.parts) AddRow(table, part, "  ");
  }
  return fmt::format("{} pods, {} containers: CPU {}, memory {}\n\n{}", rows.size(),
                     stats.stats_size(), Percent(all.cores), Size(all.memory), table.Render());
}

}  // namespace crisp::ctl
