#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "services/crispctl/client.h"

namespace crisp::ctl {

struct DaemonLine {
  std::string service;
  std::string instance;
  std::string socket;
  Result<daemon::v1::InfoResponse> info;
  /// What it runs with; nothing: it is away, or too old to say.
  std::optional<settings::Settings> running = std::nullopt;
};

/// The daemons below an endpoint, and what is wrong with them.
struct Findings {
  std::vector<DaemonLine> daemons;
  std::vector<std::pair<std::string, std::string>> problems;  // what, hint
  std::vector<std::pair<std::string, std::string>> notes;     // the same, of what is not wrong
};

Findings LookAround(const Endpoint& endpoint);
nlohmann::json AsJson(const Findings& found);

}  // namespace crisp::ctl
