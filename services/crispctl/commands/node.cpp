#include <CLI/CLI.hpp>
#include <algorithm>

#include "libs/base/try.h"
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
}

}  // namespace crisp::ctl
