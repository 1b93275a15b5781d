#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "libs/settings/settings.h"
#include "services/netd/store/layout.h"

namespace crisp::netd {

/// What netd needs of the settings.
struct Config {
  Layout layout;
  std::string instance = "1";
  std::vector<std::string> conf_dirs;
  std::vector<std::string> bin_dirs;
  std::string cache_dir;                       // <cache_dir>/results is libcni's cache
  std::string default_network;                 // empty = the first file
  std::chrono::nanoseconds attach_timeout{};   // of ADD with all plugins
  std::chrono::nanoseconds detach_timeout{};   // of DEL, also when it undoes an ADD
  std::chrono::nanoseconds orphan_grace{};     // before an attachment that nobody owns is freed
  std::chrono::nanoseconds network_wait{};     // of a new pod, for a network that is not ready
  std::chrono::nanoseconds status_interval{};  // between looks at the network
  std::chrono::nanoseconds status_grace{};     // a network that was ready still counts as ready
  std::chrono::nanoseconds gc_interval{};      // between CNI GCs
  std::chrono::nanoseconds gc_timeout = std::chrono::seconds(10);  // of a network: pods wait
  std::chrono::nanoseconds gc_patience = std::chrono::seconds(2);  // for ADDs to end: others wait
  std::chrono::nanoseconds gc_retry = std::chrono::minutes(1);     // after one that failed
  bool builtin_hostports = false;  // netd maps host ports, not a plugin
  std::string nft = "/usr/sbin/nft";
  std::map<std::string, std::string> sysctls;  // of all pods; a pod's own go before
};

Config ConfigFrom(const settings::Settings& settings, const std::string& instance);

}  // namespace crisp::netd
