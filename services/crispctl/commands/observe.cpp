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

/// Its container's name and, where it has ended, how: "exit 137, OOMKilled".
struct EventWords {
  std::string name;
  std::string why;
};
EventWords WordsOf(const ContainerEventResponse& event) {
  const std::string& id = event.container_id();
  for (const auto& container : event.containers_statuses()) {
    if (container.id() != id) continue;
    EventWords words{container.metadata().name(), ""};
    if (event.container_event_type() == runtime::v1::CONTAINER_STOPPED_EVENT) {
      words.why = fmt::format("exit {}", container.exit_code());
      if (!container.reason().empty()) words.why += ", " + container.reason();
      if (!container.message().empty()) words.why += ": " + container.message();
    }
    return words;
  }
  return {id == event.pod_sandbox_status().id() ? "(pod)" : "(container)", ""};  // the latter: gone
}

void ShowEvent(const ContainerEventResponse& event, bool json) {
  if (json) {
    Print(ToJson(event));
  } else {
    const auto& pod = event.pod_sandbox_status();
    const std::string type =
        Lower(runtime::v1::ContainerEventType_Name(event.container_event_type()), "CONTAINER_");
    const EventWords words = WordsOf(event);
    std::string line = fmt::format("{}  {:<8}  {}  {}  {}/{}", TimeOfDay(event.created_at()),
                                   type.substr(0, type.find('_')), ShortId(event.container_id()),
                                   words.name, pod.metadata().namespace_(), pod.metadata().name());
    if (!words.why.empty()) line += "  " + words.why;
    Print(line);
  }
  std::fflush(stdout);
}

}  // namespace

void AddObserveCommands(CLI::App& app, Shared& shared) {
  CLI::App* stats = app.add_subcommand("stats", "What the containers use; the busiest first");
  stats->callback(
      [&shared] { WithClient(shared, [&](Client& client) { return ShowStats(client, shared); }); });
  CLI::App* events =
      app.add_subcommand("events",
                         "What happens to pods and containers, until interrupted: when, "
                         "what, to whom, and why a container has ended");
  events->callback([&shared] {
    WithClient(shared, [&](Client& client) -> Result<int> {
      CRISP_TRY(client.FollowEvents(
          [&shared](const ContainerEventResponse& event) { ShowEvent(event, shared.json()); }));
      return kDone;
    });
  });
}

}  // namespace crisp::ctl
