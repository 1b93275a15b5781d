#include "services/netd/config.h"

namespace crisp::netd {

Config ConfigFrom(const settings::Settings& settings, const std::string& instance) {
  Config config;
  config.layout = {.state_root = settings.state_root, .run_root = settings.run_root};
  config.instance = instance;
  config.conf_dirs = settings.netd.conf_dirs;
  config.bin_dirs = settings.netd.bin_dirs;
  config.cache_dir = settings.netd.cache_dir;
  config.default_network = settings.netd.default_network;
  config.attach_timeout = settings.netd.attach_timeout;
  config.detach_timeout = settings.netd.detach_timeout;
  config.orphan_grace = settings.netd.orphan_grace;
  config.network_wait = settings.netd.network_wait;
  config.status_interval = settings.netd.status_interval;
  config.status_grace = settings.netd.status_grace;
  config.gc_interval = settings.netd.gc_interval;
  config.builtin_hostports = settings.netd.hostports == "builtin";
  config.nft = settings.netd.nft;
  for (const std::string& text : settings.rund.default_sysctls) {
    config.sysctls[text.substr(0, text.find('='))] = text.substr(text.find('=') + 1);
  }
  return config;
}

}  // namespace crisp::netd
