#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>

#include "libs/base/try.h"
#include "libs/daemon/reload_node.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/findings.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

int ShowStatus(const Shared& shared) {
  const auto endpoint = FindEndpoint(shared.socket, shared.config);
  if (!endpoint.ok()) return Tell(endpoint.status());
  const Findings found = LookAround(*endpoint);
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
    for (const auto& list : {found.problems, found.notes}) {
      for (const auto& [what, hint] : list) {
        Print("\n" + what + (hint.empty() ? "" : "\n  " + hint));
      }
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
}

}  // namespace crisp::ctl
