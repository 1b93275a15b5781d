#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <optional>

#include "libs/base/try.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

struct Args {
  std::vector<std::string> ids;
  std::int64_t grace = 10;
  bool force = false;
  bool all = false;
};

using runtime::v1::Container;
using runtime::v1::PodSandbox;

bool Runs(const Container& container) {
  return container.state() == runtime::v1::CONTAINER_RUNNING ||
         container.state() == runtime::v1::CONTAINER_CREATED;
}

bool Exists(const Container& /*container*/) { return true; }

/// The pod that `run` has made for the container, when none of its containers `still` does
/// something: it goes the same way as they.
Result<std::optional<PodSandbox>> EmptyRunPod(Client& client, const Container& container,
                                              bool (*still)(const Container&)) {
  const auto pods = CRISP_TRY(client.ListPods());
  for (const PodSandbox& pod : pods.items()) {
    if (pod.id() != container.pod_sandbox_id()) continue;
    if (pod.metadata().namespace_() != kRunNamespace) break;
    const auto list = CRISP_TRY(client.ListContainers());
    const auto& all = list.containers();
    const bool used = std::any_of(all.begin(), all.end(), [&](const Container& other) {
      return other.pod_sandbox_id() == pod.id() && still(other);
    });
    if (used) break;
    return std::optional(pod);
  }
  return std::optional<PodSandbox>();
}

Status StopOne(Client& client, const Args& args, const std::string& text) {
  const auto container = FindContainer(client, text);
  if (!container.ok()) {
    if (auto pod = FindPod(client, text); pod.ok()) return client.StopPod(pod->id());
    return container.status();
  }
  CRISP_TRY(client.StopContainer(container->id(), std::chrono::seconds(args.grace)));
  const auto pod = CRISP_TRY(EmptyRunPod(client, *container, Runs));
  return pod ? client.StopPod(pod->id()) : Status::Ok();
}

Status RemovePod(Client& client, const PodSandbox& pod) {
  CRISP_TRY(client.StopPod(pod.id()));
  CRISP_TRY(client.RemovePod(pod.id()));
  ForgetRunLogs(client.endpoint(), pod);
  return Status::Ok();
}

Status RemoveOne(Client& client, const Args& args, const std::string& text) {
  const auto container = FindContainer(client, text);
  if (!container.ok()) {
    const auto pod = FindPod(client, text);
    if (!pod.ok()) return container.status();
    if (!args.force && pod->state() == runtime::v1::SANDBOX_READY) {
      return FailedPrecondition("pod {} is ready: stop it first, or use -f", text);
    }
    return RemovePod(client, *pod);
  }
  if (!args.force && container->state() == runtime::v1::CONTAINER_RUNNING) {
    return FailedPrecondition("container {} runs: stop it first, or use -f", text);
  }
  CRISP_TRY(client.RemoveContainer(container->id()));
  const auto pod = CRISP_TRY(EmptyRunPod(client, *container, Exists));
  return pod ? RemovePod(client, *pod) : Status::Ok();
}

/// All pods and, with `images`, then all images.
Result<int> Wipe(Client& client, const Shared& shared, bool images, bool yes) {
  const auto listed = CRISP_TRY(client.ListPods());
  std::map<std::string, PodSandbox> pods;
  std::vector<std::string> names;
  for (const auto& pod : listed.items()) {
    pods[pod.id()] = pod;
    names.push_back(pod.id());
  }
  if (images) {
    const auto list = CRISP_TRY(client.ListImages());
    for (const auto& image : list.images()) names.push_back(image.id());
  }
  if (!yes) {
    return InvalidArgument("this would remove {} pods and {} images of this node: say --yes",
                           pods.size(), names.size() - pods.size());
  }
  return ForEach(shared, names, [&](const std::string& name) {
    const auto pod = pods.find(name);
    return pod == pods.end() ? client.RemoveImage(name) : RemovePod(client, pod->second);
  });
}

}  // namespace

void AddEndCommands(CLI::App& app, Shared& shared) {
  auto stop_args = std::make_shared<Args>();
  CLI::App* stop =
      app.add_subcommand("stop", "Stop containers, or pods; with a container of 'run' its pod");
  stop->add_option("ID", stop_args->ids, "Ids or names")->required();
  stop->add_option("-t,--time", stop_args->grace, "Seconds from the stop signal to SIGKILL")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{86'400}))
      ->capture_default_str();
  stop->callback([&shared, stop_args] {
    WithClient(shared, [&](Client& client) -> Result<int> {
      return ForEach(shared, stop_args->ids,
                     [&](const std::string& id) { return StopOne(client, *stop_args, id); });
    });
  });

  auto rm_args = std::make_shared<Args>();
  CLI::App* rm = app.add_subcommand(
      "rm",
      "Remove containers, or pods with all that is in them; with a container of 'run' its pod");
  rm->add_option("ID", rm_args->ids, "Ids or names")->required();
  rm->add_flag("-f,--force", rm_args->force, "Also what runs: it is killed");
  rm->callback([&shared, rm_args] {
    WithClient(shared, [&](Client& client) -> Result<int> {
      return ForEach(shared, rm_args->ids,
                     [&](const std::string& id) { return RemoveOne(client, *rm_args, id); });
    });
  });

  auto rmp_args = std::make_shared<Args>();
  CLI::App* rmp = app.add_subcommand("rmp", "Stop and remove pods with all that is in them");
  rmp->add_option("POD", rmp_args->ids, "Ids or names");
  rmp->add_flag("-a,--all", rmp_args->all, "All pods of the node");
  rmp->callback([&shared, rmp_args] {
    WithClient(shared, [&](Client& client) -> Result<int> {
      std::vector<std::string> ids = rmp_args->ids;
      if (rmp_args->all) {
        const auto list = CRISP_TRY(client.ListPods());
        for (const auto& pod : list.items()) ids.push_back(pod.id());
      } else if (ids.empty()) {
        return InvalidArgument("which pods? Give ids or names, or --all");
      }
      return ForEach(shared, ids, [&](const std::string& id) -> Status {
        return RemovePod(client, CRISP_TRY(FindPod(client, id)));
      });
    });
  });

  struct WipeArgs {
    bool images = false;
    bool yes = false;
  };
  auto wipe_args = std::make_shared<WipeArgs>();
  CLI::App* wipe = app.add_subcommand(
      "wipe", "Stop and remove all pods of the node, for one that leaves its cluster");
  wipe->add_flag("--images", wipe_args->images, "All images, too");
  wipe->add_flag("--yes", wipe_args->yes, "Really");
  wipe->callback([&shared, wipe_args] {
    WithClient(shared, [&](Client& client) {
      return Wipe(client, shared, wipe_args->images, wipe_args->yes);
    });
  });
}

}  // namespace crisp::ctl
