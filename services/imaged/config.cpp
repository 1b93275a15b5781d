#include "services/imaged/config.h"

namespace crisp::imaged {

Config Config::From(const settings::Settings& settings, std::string_view version) {
  const settings::Imaged& own = settings.imaged;
  Config config(settings);
  config.hosts.insecure = own.insecure_registries;
  config.hosts.registries_conf = own.registries_conf;
  config.hosts.short_name_aliases = own.short_name_aliases;
  config.hosts.hosts_dir = own.hosts_dir;
  config.hosts.certs_dirs = own.certs_dirs;
  config.hosts.auth_files = own.auth_files;
  config.hosts.helper_dirs = own.credential_helper_dirs;
  config.pinned_images = own.pinned_images;
  config.orphan_grace = own.orphan_grace;
  config.pull.parallel_layers = static_cast<std::size_t>(own.parallel_layers);
  config.pull.parallel_pulls = static_cast<std::size_t>(own.parallel_pulls);
  config.pull.parallel_unpackers = static_cast<std::size_t>(own.parallel_unpackers);
  config.pull.parallel_downloads = static_cast<std::size_t>(own.parallel_downloads);
  config.pull.spread.most = static_cast<std::size_t>(own.layer_connections);
  config.pull.reuse_files = own.reuse_files;
  config.pull.max_rate = own.max_rate;
  config.pull.max_pull_rate = own.max_pull_rate;
  config.pull.timeout = own.pull_timeout;
  config.pull.max_layer_size = own.max_layer_size;
  config.pull.expansion.max_times = static_cast<std::uint64_t>(own.max_expansion);
  config.pull.max_manifest_size = own.max_manifest_size;
  config.pull.max_layers = static_cast<std::size_t>(own.max_layers);
  config.pull.max_files = static_cast<std::uint64_t>(own.max_files);
  config.verify = own.verify;
  config.overlay_options = own.overlay_options;
  if (own.driver == "vfs") config.driver = Snapshots::Driver::kVfs;
  if (own.driver == "btrfs") config.driver = Snapshots::Driver::kBtrfs;
  config.pull.erofs = own.driver == "erofs";
  config.trust.policy = own.policy;
  config.trust.policy_may_be_absent = own.policy == settings::Imaged().policy;
  config.trust.registries_dir = own.registries_d;
  config.trust.temp_root = config.layout.root();
  config.http.user_agent = "crisp/" + std::string(version);
  config.http.stall_timeout = own.stall_timeout;
  config.http.min_rate = own.min_rate;
  return config;
}

}  // namespace crisp::imaged
