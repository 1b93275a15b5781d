#include "services/netd/config.h"

namespace crisp::netd {

Config ConfigFrom(const settings::Settings& settings, const std::string& instance) {
  Config config;
  config.layout = {.state_root = settings.state_root, .run_root = settings.run_root};
  config.instance = instance;
  config.conf_dir = settings.netd.conf_dir;
  config.bin_dirs = settings.netd.bin_dirs;
  config.default_network = settings.netd.default_network;
  config.attach_timeout = settings.netd.attach_timeout;
  config.detach_timeout = settings.netd.detach_timeout;
  config.orphan_grace = settings.netd.orphan_grace;
  return config;
}

}  // namespace crisp::netd
