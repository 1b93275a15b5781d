#include "services/crispctl/findings.h"

#include <fmt/format.h>

#include <algorithm>

#include "services/crispctl/node_checks.h"

namespace crisp::ctl {
namespace {

std::vector<DaemonLine> AskDaemons(const Endpoint& endpoint) {
  std::vector<DaemonLine> lines;
  for (const auto& [service, instance, socket] : DaemonsOf(endpoint)) {
    DaemonLine line{service, instance, socket, Client::Info(socket)};
    if (line.info.ok()) {
      if (auto running = Client::SettingsOf(socket); running.ok()) line.running = *running;
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

std::string HintFor(const DaemonLine& line) {
  return fmt::format("start it: systemctl start {0}; why it ended: journalctl -u {0}",
                     UnitOf(line.service, line.instance));
}

}  // namespace

Findings LookAround(const Endpoint& endpoint) {
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
  for (const auto& [what, hint] : VersionProblems(found.daemons)) add(what, hint);
  const SettingsFiles files = ReadSettingsFiles(found.daemons);
  for (const auto& [what, hint] : SettingsProblems(files)) add(what, hint);
  for (const auto& [what, hint] : DiskProblems(found.daemons)) add(what, hint);
  found.notes = PendingSettings(found.daemons, files);
  Client client(endpoint);
  if (!client.Reach().ok()) return found;
  const auto status = client.NodeStatus(false);
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
  const auto listed = [](const auto& findings) {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& [what, hint] : findings) list.push_back({{"what", what}, {"hint", hint}});
    return list;
  };
  return {{"daemons", std::move(daemons)},
          {"problems", listed(found.problems)},
          {"notes", listed(found.notes)}};
}

}  // namespace crisp::ctl
