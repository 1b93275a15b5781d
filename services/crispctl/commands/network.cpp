#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

struct Args {
  std::vector<std::string> pods;
  bool all = false;
};

struct Finding {
  std::string pod;
  std::string id;
  std::string state;  // ok, unasked, none, failed
  std::string message;
};

/// kUnavailable: nobody is there to be asked.
Result<Finding> CheckOne(Client& client, const runtime::v1::PodSandbox& pod) {
  Finding finding{.pod = pod.metadata().name(), .id = pod.id(), .state = "ok", .message = ""};
  const Result<bool> asked = client.CheckNetwork(pod.id());
  if (asked.ok() && !*asked) {
    finding.state = "unasked";
    finding.message = "its network's configuration has no CHECK";
  } else if (asked.code() == Code::kNotFound) {
    finding.state = "none";
    finding.message = "it has no network of its own: the host's, or it is stopped";
  } else if (asked.code() == Code::kUnavailable) {
    return asked.status();
  } else if (!asked.ok()) {
    finding.state = "failed";
    finding.message = asked.status().message();
  }
  return finding;
}

Result<int> CheckPods(Client& client, const Shared& shared, const Args& args) {
  std::vector<runtime::v1::PodSandbox> pods;
  if (args.all) {
    const auto list = CRISP_TRY(client.ListPods());
    pods.assign(list.items().begin(), list.items().end());
  } else if (args.pods.empty()) {
    return InvalidArgument("which pods? Give ids or names, or --all");
  }
  for (const std::string& text : args.pods) pods.push_back(CRISP_TRY(FindPod(client, text)));

  int code = kDone;
  Table table({"POD", "ID", "NETWORK", "WORDS"});
  nlohmann::json all = nlohmann::json::array();
  for (const auto& pod : pods) {
    const Finding finding = CRISP_TRY(CheckOne(client, pod));
    if (finding.state == "failed") code = kFailed;
    table.Add({finding.pod, ShortId(finding.id), finding.state, finding.message});
    all.push_back({{"pod", finding.pod},
                   {"id", finding.id},
                   {"network", finding.state},
                   {"message", finding.message}});
  }
  Print(shared.json() ? json::Dump(all) : table.Render());
  return code;
}

}  // namespace

void AddNetworkCommands(CLI::App& app, Shared& shared) {
  const auto args = std::make_shared<Args>();
  CLI::App* network = app.add_subcommand("network", "The networks of pods");
  network->require_subcommand(1);
  CLI::App* check = network->add_subcommand(
      "check",
      "Have the network plugins of pods look whether all is as they made it (exit 1: it is not)");
  auto* pods = check->add_option("POD", args->pods, "Ids or names");
  check->add_flag("-a,--all", args->all, "All pods of the node")->excludes(pods);
  check->callback([&shared, args] {
    WithClient(shared, [&](Client& client) { return CheckPods(client, shared, *args); });
  });
}

}  // namespace crisp::ctl
