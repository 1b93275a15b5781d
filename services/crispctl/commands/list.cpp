#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>

#include "libs/base/try.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

struct Args {
  bool all = false;
  bool quiet = false;
  bool tree = false;
  std::string pod;
  std::string id;
};

std::string ImageName(const runtime::v1::Container& container) {
  const auto& image = container.image();
  if (!image.user_specified_image().empty()) return image.user_specified_image();
  return image.image().starts_with("sha256:") ? ShortId(image.image()) : image.image();
}

Result<int> ListContainers(Client& client, const Shared& shared, const Args& args) {
  auto list = CRISP_TRY(client.ListContainers());
  const auto pods = CRISP_TRY(client.ListPods());
  std::map<std::string, std::string> pod_names;
  for (const auto& pod : pods.items()) pod_names[pod.id()] = pod.metadata().name();
  auto* all = list.mutable_containers();
  all->erase(std::remove_if(
                 all->begin(), all->end(),
                 [&](const runtime::v1::Container& container) {
                   if (!args.all && container.state() != runtime::v1::CONTAINER_RUNNING) {
                     return true;
                   }
                   return !args.pod.empty() && !container.pod_sandbox_id().starts_with(args.pod) &&
                          pod_names[container.pod_sandbox_id()] != args.pod;
                 }),
             all->end());
  std::sort(all->begin(), all->end(),
            [](const auto& a, const auto& b) { return a.created_at() > b.created_at(); });
  if (shared.json()) {
    Print(ToJson(list));
    return kDone;
  }
  if (args.quiet) {
    for (const auto& container : list.containers()) Print(container.id());
    return kDone;
  }
  Table table({"CONTAINER", "NAME", "STATE", "AGE", "ATTEMPT", "IMAGE", "POD"});
  for (const auto& container : list.containers()) {
    table.Add({ShortId(container.id()), container.metadata().name(),
               Lower(runtime::v1::ContainerState_Name(container.state()), "CONTAINER_"),
               Since(container.created_at()), std::to_string(container.metadata().attempt()),
               ImageName(container), pod_names[container.pod_sandbox_id()]});
  }
  Print(table.Render());
  return kDone;
}

/// Each pod with its containers below it, the newest first.
Result<int> ShowTree(Client& client, const runtime::v1::ListPodSandboxResponse& pods) {
  auto list = CRISP_TRY(client.ListContainers());
  std::sort(list.mutable_containers()->begin(), list.mutable_containers()->end(),
            [](const auto& a, const auto& b) { return a.created_at() > b.created_at(); });
  Table table({"POD / CONTAINER", "STATE", "AGE", "ATTEMPT", "ID"});
  for (const auto& pod : pods.items()) {
    table.Add({fmt::format("{}/{}", pod.metadata().namespace_(), pod.metadata().name()),
               Lower(runtime::v1::PodSandboxState_Name(pod.state()), "SANDBOX_"),
               Since(pod.created_at()), std::to_string(pod.metadata().attempt()),
               ShortId(pod.id())});
    for (const auto& container : list.containers()) {
      if (container.pod_sandbox_id() != pod.id()) continue;
      table.Add({"  " + container.metadata().name(),
                 Lower(runtime::v1::ContainerState_Name(container.state()), "CONTAINER_"),
                 Since(container.created_at()), std::to_string(container.metadata().attempt()),
                 ShortId(container.id())});
    }
  }
  Print(table.Render());
  return kDone;
}

Result<int> ListPods(Client& client, const Shared& shared, const Args& args) {
  auto list = CRISP_TRY(client.ListPods());
  std::sort(list.mutable_items()->begin(), list.mutable_items()->end(),
            [](const auto& a, const auto& b) { return a.created_at() > b.created_at(); });
  if (shared.json()) {
    Print(ToJson(list));
    return kDone;
  }
  if (args.quiet) {
    for (const auto& pod : list.items()) Print(pod.id());
    return kDone;
  }
  if (args.tree) return ShowTree(client, list);
  Table table({"POD", "NAMESPACE", "NAME", "STATE", "AGE", "ATTEMPT", "RUNTIME"});
  for (const auto& pod : list.items()) {
    table.Add({ShortId(pod.id()), pod.metadata().namespace_(), pod.metadata().name(),
               Lower(runtime::v1::PodSandboxState_Name(pod.state()), "SANDBOX_"),
               Since(pod.created_at()), std::to_string(pod.metadata().attempt()),
               pod.runtime_handler().empty() ? "(default)" : pod.runtime_handler()});
  }
  Print(table.Render());
  return kDone;
}

}  // namespace

void AddListCommands(CLI::App& app, Shared& shared) {
  auto ps_args = std::make_shared<Args>();
  CLI::App* ps = app.add_subcommand("ps", "The containers that run");
  ps->add_flag("-a,--all", ps_args->all, "Those that do not run, too");
  ps->add_flag("-q,--quiet", ps_args->quiet, "Only ids");
  ps->add_option("-p,--pod", ps_args->pod, "Of one pod: its id, or its name");
  ps->callback([&shared, ps_args] {
    WithClient(shared, [&](Client& client) { return ListContainers(client, shared, *ps_args); });
  });

  auto pod_args = std::make_shared<Args>();
  CLI::App* pods = app.add_subcommand("pods", "The pods");
  pods->add_flag("-q,--quiet", pod_args->quiet, "Only ids");
  pods->add_flag("--tree", pod_args->tree, "Each with its containers");
  pods->callback([&shared, pod_args] {
    WithClient(shared, [&](Client& client) { return ListPods(client, shared, *pod_args); });
  });

  auto inspect_args = std::make_shared<Args>();
  CLI::App* inspect = app.add_subcommand("inspect", "All about a container, as JSON");
  inspect->add_option("CONTAINER", inspect_args->id, "Its id, or its name")->required();
  inspect->callback([&shared, inspect_args] {
    WithClient(shared, [&](Client& client) -> Result<int> {
      const auto container = CRISP_TRY(FindContainer(client, inspect_args->id));
      Print(ToJson(CRISP_TRY(client.ContainerStatus(container.id(), /*verbose=*/true))));
      return kDone;
    });
  });
}

}  // namespace crisp::ctl
