#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "libs/base/try.h"
#include "libs/daemon/reload_node.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/settings/settings.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

struct DaemonLine {
  std::string service;
  std::string instance;
  std::string socket;
  Result<daemon::v1::InfoResponse> info;
};

std::vector<std::string> InstancesOf(const std::string& dir) {
  std::vector<std::string> names;
  for (const std::string& file : os::ListDir(dir).value_or(std::vector<std::string>())) {
    constexpr std::string_view kEnd = ".sock";
    if (!file.ends_with(kEnd)) continue;
    std::string name = file.substr(0, file.size() - kEnd.size());
    if (name.find('.') == std::string::npos) names.push_back(std::move(name));
  }
  if (names.empty()) names.emplace_back("1");
  return names;
}

std::vector<DaemonLine> AskDaemons(const Endpoint& endpoint) {
  std::vector<DaemonLine> lines;
  for (const std::string service : {"crid", "imaged", "netd", "rund"}) {
    const std::string dir = endpoint.run_root + "/" + service;
    for (const std::string& instance : InstancesOf(dir)) {
      const std::string socket = dir + "/" + instance + ".sock";
      lines.push_back({service, instance, socket, Client::Info(socket)});
    }
  }
  return lines;
}

std::string HintFor(const DaemonLine& line) {
  const std::string unit = line.service == "crid"
                               ? std::string("crisp-crid")
                               : fmt::format("crisp-{}@{}", line.service, line.instance);
  return fmt::format("start it: systemctl start {0}; why it ended: journalctl -u {0}", unit);
}

struct Findings {
  std::vector<DaemonLine> daemons;
  std::vector<std::pair<std::string, std::string>> problems;  // what, hint
};

Findings LookAround(const Shared& shared, const Endpoint& endpoint) {
  Findings found;
  found.daemons = AskDaemons(endpoint);
  auto add = [&found](const std::string& what, const std::string& hint) {
    const bool known = std::any_of(found.problems.begin(), found.problems.end(),
                                   [&what](const auto& problem) { return problem.first == what; });
    if (!known) found.problems.emplace_back(what, hint);
  };
  for (const DaemonLine& line : found.daemons) {
    const std::string name = line.service + "/" + line.instance;
    if (!line.info.ok()) {
      const bool denied = line.info.code() == Code::kPermissionDenied;
      add(name + (denied ? " may not be asked" : " is not running"),
          denied ? "try again as root" : HintFor(line));
    }
  }
  for (const DaemonLine& line : found.daemons) {
    if (!line.info.ok()) continue;
    for (const auto& problem : line.info->problems()) add(problem.what(), problem.hint());
  }
  auto client = Connect(shared);
  if (!client.ok()) return found;
  const auto status = (*client)->NodeStatus(false);
  if (!status.ok()) {
    add(status.status().message(), "");
    return found;
  }
  for (const auto& condition : status->status().conditions()) {
    if (condition.status()) continue;
    const bool told = std::any_of(
        found.problems.begin(), found.problems.end(), [&condition](const auto& problem) {
          return !condition.message().empty() &&
                 problem.first.find(condition.message()) != std::string::npos;
        });
    if (!told) {
      add(fmt::format("{} is false: {}", condition.type(),
                      condition.message().empty() ? condition.reason() : condition.message()),
          "");
    }
  }
  return found;
}

nlohmann::json AsJson(const Findings& found) {
  nlohmann::json daemons = nlohmann::json::array();
  for (const DaemonLine& line : found.daemons) {
    nlohmann::json one = {{"service", line.service},
                          {"instance", line.instance},
                          {"socket", line.socket},
                          {"healthy", line.info.ok() && !line.info->draining()}};
    if (line.info.ok()) {
      one["version"] = line.info->version();
      one["pid"] = line.info->pid();
      one["startedAt"] = line.info->started_at();
      one["draining"] = line.info->draining();
    } else {
      one["error"] = line.info.status().message();
    }
    daemons.push_back(std::move(one));
  }
  nlohmann::json problems = nlohmann::json::array();
  for (const auto& [what, hint] : found.problems) {
    problems.push_back({{"what", what}, {"hint", hint}});
  }
  return {{"daemons", std::move(daemons)}, {"problems", std::move(problems)}};
}

int ShowStatus(const Shared& shared) {
  const auto endpoint = FindEndpoint(shared.socket, shared.config);
  if (!endpoint.ok()) return Tell(endpoint.status());
  const Findings found = LookAround(shared, *endpoint);
  const bool none = std::none_of(found.daemons.begin(), found.daemons.end(),
                                 [](const DaemonLine& line) { return line.info.ok(); });
  if (shared.json()) {
    Print(AsJson(found).dump(2));
  } else {
    Table table({"DAEMON", "INSTANCE", "STATE", "VERSION", "PID", "UP"});
    for (const DaemonLine& line : found.daemons) {
      if (line.info.ok()) {
        table.Add({line.service, line.instance, line.info->draining() ? "stopping" : "healthy",
                   line.info->version(), std::to_string(line.info->pid()),
                   Since(line.info->started_at())});
      } else {
        table.Add({line.service, line.instance, "away", "-", "-", "-"});
      }
    }
    Print(table.Render());
    for (const auto& [what, hint] : found.problems) {
      Print("\n" + what + (hint.empty() ? "" : "\n  " + hint));
    }
  }
  if (none) {
    Complain(
        fmt::format("is crisp running? No daemon answers below {}: start them with "
                    "'systemctl start crisp.target', or name the socket with --socket",
                    endpoint->run_root));
    return kNotReached;
  }
  return found.problems.empty() ? kDone : kFailed;
}

int ShowConfig(const Shared& shared, bool plain) {
  const auto settings =
      settings::Load(shared.config.empty() ? std::string(settings::kDefaultPath) : shared.config);
  if (!settings.ok()) return Tell(settings.status());
  Print(plain ? settings::Dump(*settings) : settings::DumpCommented(*settings));
  return kDone;
}

std::string OrNothing(const std::vector<std::string>& keys) {
  return keys.empty() ? "-" : fmt::format("{}", fmt::join(keys, " "));
}

int Reload(const Shared& shared) {
  const auto endpoint = FindEndpoint(shared.socket, shared.config);
  if (!endpoint.ok()) return Tell(endpoint.status());
  const auto reloaded = daemon::ReloadNode(
      CallContext::Background(std::chrono::minutes(2), "crispctl"), endpoint->run_root);
  if (!reloaded.ok()) return Tell(reloaded.status());
  if (shared.json()) {
    nlohmann::json out = nlohmann::json::array();
    for (const auto& one : *reloaded) {
      out.push_back(
          {{"daemon", one.daemon}, {"changed", one.changed}, {"needsRestart", one.needs_restart}});
    }
    Print(out.dump(2));
    return kDone;
  }
  Table table({"DAEMON", "CHANGED", "NEEDS A RESTART"});
  for (const auto& one : *reloaded) {
    table.Add({one.daemon, OrNothing(one.changed), OrNothing(one.needs_restart)});
  }
  Print(table.Render());
  return kDone;
}

Result<int> ShowVersion(Client& client, const Shared& shared) {
  const auto version = CRISP_TRY(client.Version());
  if (shared.json()) {
    Print(ToJson(version));
  } else {
    Print(fmt::format("crispctl {}\n{} {}, CRI {}", CRISP_VERSION, version.runtime_name(),
                      version.runtime_version(), version.runtime_api_version()));
  }
  return kDone;
}

}  // namespace

void AddNodeCommands(CLI::App& app, Shared& shared) {
  app.add_subcommand("status", "The daemons, and what is wrong with them and what to do about it")
      ->footer("Exit code: 0 all is well, 1 something is wrong, 3 nothing answers.")
      ->callback([&shared] { shared.exit_code = ShowStatus(shared); });
  app.add_subcommand("version", "The versions of crispctl and of the runtime")->callback([&shared] {
    WithClient(shared, [&shared](Client& client) { return ShowVersion(client, shared); });
  });
  app.add_subcommand("reload",
                     "The daemons take the settings as they are in the files now: all or none of "
                     "them. Says what has changed, and which keys want a restart")
      ->callback([&shared] { shared.exit_code = Reload(shared); });
  auto plain = std::make_shared<bool>(false);
  CLI::App* config =
      app.add_subcommand("config", "The configuration in force, with what each key means");
  config->add_flag("--plain", *plain, "Without comments");
  config->callback([&shared, plain] { shared.exit_code = ShowConfig(shared, *plain); });
}

}  // namespace crisp::ctl
