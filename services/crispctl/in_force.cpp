#include "services/crispctl/in_force.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>

namespace crisp::ctl {
namespace {

/// Takes what concerns `service` alone; what is everybody's is the front's, which is asked first.
void TakeSection(settings::Settings& into, const settings::Settings& from,
                 std::string_view service) {
  if (service == "crid") {
    into.log = from.log;
    into.tracing = from.tracing;
    into.state_root = from.state_root;
    into.run_root = from.run_root;
    into.crid = from.crid;
  } else if (service == "imaged") {
    into.imaged = from.imaged;
  } else if (service == "netd") {
    into.netd = from.netd;
  } else {
    into.rund = from.rund;
  }
}

}  // namespace

std::vector<PendingKey> PendingOf(const std::string& service, const std::string& instance,
                                  const settings::Settings& running,
                                  const settings::Settings& files) {
  std::vector<PendingKey> pending;
  for (settings::Change& change : settings::Changes(running, files, service)) {
    pending.push_back({.daemon = fmt::format("{}/{}", service, instance),
                       .key = change.key,
                       .running = settings::ValueOf(running, change.key).value_or("-"),
                       .files = settings::ValueOf(files, change.key).value_or("-"),
                       .live = change.live});
  }
  return pending;
}

Result<InForce> AskInForce(const Endpoint& endpoint, const settings::Settings& files) {
  InForce found;
  found.settings = files;
  for (const std::string service : kServices) {
    bool answered = false;
    for (const std::string& instance : InstancesOf(endpoint, service)) {
      const auto running = Client::SettingsOf(SocketOf(endpoint, service, instance));
      if (!running.ok()) continue;
      if (!std::exchange(answered, true)) TakeSection(found.settings, *running, service);
      found.daemons.push_back(fmt::format("{}/{}", service, instance));
      auto pending = PendingOf(service, instance, *running, files);
      std::move(pending.begin(), pending.end(), std::back_inserter(found.pending));
    }
    if (!answered) found.silent.push_back(service);
  }
  if (found.daemons.empty()) {
    return Unavailable("no daemon answers below {} (only root may ask them)", endpoint.run_root);
  }
  return found;
}

}  // namespace crisp::ctl
