#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "libs/http/client.h"
#include "libs/settings/settings.h"
#include "services/imaged/core/pull.h"

namespace crisp::imaged {

/// What imaged takes from the settings.
struct Config {
  std::string state_root;
  std::vector<std::string> insecure_registries;
  std::vector<std::string> pinned_images;
  std::chrono::nanoseconds orphan_grace;
  PullOptions pull;
  http::ClientOptions http;

  static Config From(const settings::Settings& settings, std::string_view version);
};

}  // namespace crisp::imaged
