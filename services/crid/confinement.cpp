#include "services/crid/confinement.h"

#include <charconv>
#include <filesystem>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::crid {

Result<std::optional<os::ConfinePlan>> PlanConfinement(const settings::Settings& settings,
                                                       const daemon::Options& options) {
  if (!settings.crid.confine) return std::optional<os::ConfinePlan>();
  os::ConfinePlan plan = daemon::BasePlan(settings, options);
  // Watched for the others' sockets; who comes first makes them.
  for (const char* service : {"imaged", "netd", "rund"})
    CRISP_TRY(os::MakeDirs(settings.run_root + "/" + service, 0711));
  // Ours is made there.
  plan.sockets.push_back(settings.run_root);
  const std::string directory = std::filesystem::path(settings.crid.socket).parent_path();
  CRISP_TRY(os::MakeDirs(directory, 0711));
  plan.sockets.push_back(directory);
  const std::string& address = settings.crid.metrics_address;
  if (!address.empty()) {
    std::uint16_t port = 0;
    const std::size_t colon = address.rfind(':');
    std::from_chars(address.data() + colon + 1, address.data() + address.size(), port);
    plan.listen_tcp.push_back(port);
    constexpr std::uint16_t kFirstFreePort = 1024;
    if (port != 0 && port < kFirstFreePort) plan.capabilities.push_back("NET_BIND_SERVICE");
  }
  plan.connect_tcp = !settings.tracing.endpoint.empty();  // the collector
  return std::optional<os::ConfinePlan>(std::move(plan));
}

}  // namespace crisp::crid
