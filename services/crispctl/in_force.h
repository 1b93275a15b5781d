#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/settings/settings.h"
#include "services/crispctl/client.h"

// What the running daemons were told, beside what the files say by now.
namespace crisp::ctl {

/// A key that a daemon runs with another value of than the files have.
struct PendingKey {
  std::string daemon;   // "rund/1"
  std::string key;      // "rund.abandoned_grace_seconds"
  std::string running;  // as YAML; "-": an entry that is not there
  std::string files;
  bool live = false;  // a reload takes it; else a restart

  /// "reload" or "restart"
  std::string_view Takes() const { return live ? "reload" : "restart"; }
};
std::vector<PendingKey> PendingOf(const std::string& service, const std::string& instance,
                                  const settings::Settings& running,
                                  const settings::Settings& files);

struct InForce {
  /// Each section as its daemon has it (of several instances the first by name); that of one which
  /// does not answer as the files have it.
  settings::Settings settings;
  std::vector<std::string> daemons;  // who answered
  std::vector<std::string> silent;   // services of which none did
  std::vector<PendingKey> pending;
};
/// Asks all daemons. kUnavailable: none answers.
Result<InForce> AskInForce(const Endpoint& endpoint, const settings::Settings& files);

}  // namespace crisp::ctl
