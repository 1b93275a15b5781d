#include "services/rund/config.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/os/limit_names.h"
#include "services/rund/spec/devices.h"

namespace crisp::rund {
namespace {

// Beside our own program (a build tree, a bundle), else where packages put it.
std::string FindHelper(const std::string& name) {
  const auto self = os::ReadLink("/proc/self/exe");
  if (self.ok()) {
    const std::string beside = self->substr(0, self->rfind('/') + 1) + name;
    if (os::Exists(beside)) return beside;
  }
  return "/usr/libexec/crisp/" + name;
}

std::string IfThere(std::string path) { return os::Exists(path) ? std::move(path) : ""; }

}  // namespace

Result<Config> Config::From(const settings::Settings& settings, const std::string& instance) {
  const settings::Rund& rund = settings.rund;
  Config config;
  config.layout = Layout::Make(settings.state_root, settings.run_root, instance);
  config.conmon = rund.conmon;
  config.pause = rund.pause.empty() ? FindHelper("crisp-pause") : rund.pause;
  config.exec_helper = IfThere(FindHelper("crisp-exec"));
  config.log_helper = IfThere(FindHelper("crisp-log"));
  config.default_runtime = rund.default_runtime;
  for (const auto& [name, runtime] : rund.runtimes) {
    config.runtimes[name] = {runtime.path,
                             CRISP_TRY(settings.RuntimeRoot(name, instance)),
                             runtime.args,
                             runtime.monitor_env,
                             runtime.allowed_annotations,
                             runtime.privileged_without_host_devices,
                             runtime.base_spec,
                             runtime.type == "vm"};
  }
  if (!config.runtimes.contains(config.default_runtime)) {
    return InvalidArgument("rund.default_runtime: '{}' is none of rund.runtimes",
                           config.default_runtime);
  }
  config.systemd_cgroups = rund.cgroup_driver == "systemd";
  // crid may still be at work on what it has reserved for as long as it gives itself.
  config.abandoned_grace =
      rund.abandoned_grace + std::max(settings.crid.create_timeout, settings.crid.run_pod_timeout);
  config.runtime_timeout = rund.runtime_timeout;
  config.capabilities = rund.default_capabilities;
  for (const std::string& text : rund.default_ulimits) {
    config.ulimits.push_back(CRISP_TRY(os::ParseUlimit(text).While("rund.default_ulimits")));
  }
  config.seccomp_profile = rund.seccomp_profile;
  config.streaming.address = rund.streaming_address;
  config.streaming.tls = {rund.streaming_tls_cert, rund.streaming_tls_key,
                          rund.streaming_tls_min_version};
  config.streaming.idle_timeout = rund.streaming_idle_timeout;
  config.streaming.start_timeout = rund.runtime_timeout;
  config.env = rund.default_env;
  for (const std::string& text : rund.default_sysctls) {
    config.sysctls[text.substr(0, text.find('='))] = text.substr(text.find('=') + 1);
  }
  if (!rund.default_umask.empty()) config.umask = CRISP_TRY(os::ParseUmask(rund.default_umask));
  config.apparmor_profile = rund.apparmor_profile;
  config.selinux = rund.selinux;
  config.never_created_host_paths = rund.absent_mount_sources_to_reject;
  for (const std::string& text : rund.additional_devices) {
    config.devices.push_back(ParseDevice(text));
  }
  config.annotation_devices = rund.allowed_devices;
  config.device_ownership = rund.device_ownership_from_security_context;
  config.cdi_dirs = rund.cdi_spec_dirs;
  config.hooks_dirs = rund.hooks_dirs;
  config.blockio_config_file = rund.blockio_config_file;
  config.log_limits = {.rate = rund.log_rate,
                       .burst = rund.log_burst,
                       .block = rund.log_excess == "block",
                       .max_size = rund.max_log_size,
                       .guarded = rund.log_guarded};
  config.log_to_journal = rund.log_journald;
  config.restore_checkpoints = rund.restore_checkpoints;
  return config;
}

}  // namespace crisp::rund
