#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "libs/http/client.h"
#include "libs/settings/settings.h"
#include "services/imaged/core/pull.h"
#include "services/imaged/core/snapshots.h"
#include "services/imaged/store/layout.h"

namespace crisp::imaged {

/// What imaged takes from the settings.
struct Config {
  Layout layout;
  HostsOptions hosts;
  std::vector<std::string> pinned_images;
  std::chrono::nanoseconds orphan_grace;
  PullOptions pull;
  TrustOptions trust;
  std::chrono::seconds verify{};
  Snapshots::Driver driver = Snapshots::Driver::kOverlay;
  std::vector<std::string> overlay_options;
  http::ClientOptions http;

  explicit Config(const settings::Settings& settings) : layout(settings) {}
  static Config From(const settings::Settings& settings, std::string_view version);
};

}  // namespace crisp::imaged
