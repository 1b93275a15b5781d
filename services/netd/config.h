#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "libs/settings/settings.h"
#include "services/netd/store/layout.h"

namespace crisp::netd {

/// What netd needs of the settings.
struct Config {
  Layout layout;
  std::string instance = "1";
  std::string conf_dir = "/etc/cni/net.d";
  std::vector<std::string> bin_dirs;
  std::string default_network;                // empty = the first file
  std::chrono::nanoseconds attach_timeout{};  // of ADD with all plugins
  std::chrono::nanoseconds detach_timeout{};  // of DEL, also when it undoes an ADD
  std::chrono::nanoseconds orphan_grace{};    // before an attachment that nobody owns is freed
  std::chrono::nanoseconds conf_patience = std::chrono::seconds(5);  // wait for a first conf file
};

Config ConfigFrom(const settings::Settings& settings, const std::string& instance);

}  // namespace crisp::netd
