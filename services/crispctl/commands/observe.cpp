#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>

#include "libs/base/try.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

using runtime::v1::ContainerEventResponse;
using runtime::v1::ContainerStats;

/// "12.3%" of one core.
std::string Percent(const runtime::v1::CpuUsage& cpu) {
  if (!cpu.has_usage_nano_cores()) return "-";
  return fmt::format("{:.1f}%", static_cast<double>(cpu.usage_nano_cores().value()) / 1e7);
}

std::string Limit(const runtime::v1::MemoryUsage& memory) {
  if (!memory.has_available_bytes()) return "-";
  return Size(memory.available_bytes().value() + memory.working_set_bytes().value());
}

Result<int> ShowStats(Client& client, const Shared& shared) {
  auto list = CRISP_TRY(client.ListContainerStats());
  std::sort(list.mutable_stats()->begin(), list.mutable_stats()->end(),
            [](const ContainerStats& a, const ContainerStats& b) {
              return a.cpu().usage_nano_cores().value() > b.cpu().usage_nano_cores().value();
            });
  if (shared.json()) {
    Print(ToJson(list));
    return kDone;
  }
  const auto containers = CRISP_TRY(client.ListContainers());
  const auto pods = CRISP_TRY(client.ListPods());
  std::map<std::string, std::string> names;
  for (const auto& pod : pods.items()) names[pod.id()] = pod.metadata().name();
  for (const auto& container : containers.containers()) {
    names[container.id()] = names[container.pod_sandbox_id()];
  }
  Table table({"CONTAINER", "NAME", "CPU", "MEMORY", "LIMIT", "DISK", "INODES", "POD"});
  for (const ContainerStats& stats : list.stats()) {
    const auto& layer = stats.writable_layer();
    const bool counted = stats.has_writable_layer();
    table.Add({ShortId(stats.attributes().id()), stats.attributes().metadata().name(),
               Percent(stats.cpu()), Size(stats.memory().working_set_bytes().value()),
               Limit(stats.memory()), counted ? Size(layer.used_bytes().value()) : "-",
               counted ? std::to_string(layer.inodes_used().value()) : "-",
               names[stats.attributes().id()]});
  }
  Print(table.Render());
  return kDone;
}

void ShowEvent(const ContainerEventResponse& event, bool json) {
  if (json) {
    Print(ToJson(event));
  } else {
    const std::string& id = event.container_id();
    const auto& pod = event.pod_sandbox_status();
    std::string name = "(pod)";
    for (const auto& container : event.containers_statuses()) {
      if (container.id() == id) name = container.metadata().name();
    }
    if (id != pod.id() && name == "(pod)") name = "(container)";  // gone
    const std::string type =
        Lower(runtime::v1::ContainerEventType_Name(event.container_event_type()), "CONTAINER_");
    Print(fmt::format("{:<8}  {}  {}  {}/{}", type.substr(0, type.find('_')), ShortId(id), name,
                      pod.metadata().namespace_(), pod.metadata().name()));
  }
  std::fflush(stdout);
}

}  // namespace

void AddObserveCommands(CLI::App& app, Shared& shared) {
  CLI::App* stats = app.add_subcommand("stats", "What the containers use; the busiest first");
  stats->callback(
      [&shared] { WithClient(shared, [&](Client& client) { return ShowStats(client, shared); }); });
  CLI::App* events =
      app.add_subcommand("events", "What happens to pods and containers, until interrupted");
  events->callback([&shared] {
    WithClient(shared, [&](Client& client) -> Result<int> {
      CRISP_TRY(client.FollowEvents(
          [&shared](const ContainerEventResponse& event) { ShowEvent(event, shared.json()); }));
      return kDone;
    });
  });
}

}  // namespace crisp::ctl
