#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "libs/base/result.h"
#include "libs/settings/settings.h"
#include "services/rund/runtime/logger.h"
#include "services/rund/spec/builder.h"
#include "services/rund/store/layout.h"
#include "services/rund/streaming/server.h"

namespace crisp::rund {

struct RuntimeConfig {
  std::string path;
  std::string root;
  std::vector<std::string> args = {};
  std::vector<std::string> monitor_env = {};
  std::vector<std::string> allowed_annotations = {};
  bool privileged_without_host_devices = false;
  std::string base_spec = {};
  bool vm = false;  // a shim v2 rather than an OCI command line
};

/// What one instance of rund needs to know, from the settings of the node.
struct Config {
  Layout layout;
  std::string conmon;
  std::string pause;
  std::string exec_helper;  // crisp-exec; empty = none
  std::string log_helper;   // crisp-log; empty = none
  std::string default_runtime;
  bool systemd_cgroups = false;  // the cgroup driver; else cgroupfs
  std::map<std::string, RuntimeConfig> runtimes;
  std::chrono::seconds abandoned_grace{120};
  /// For one call of a runtime, or the whole of a create.
  std::chrono::seconds runtime_timeout{120};
  std::vector<std::string> capabilities;
  std::vector<os::Ulimit> ulimits;
  std::string seccomp_profile;
  streaming::ServerOptions streaming;
  std::vector<std::string> env;
  std::map<std::string, std::string> sysctls;
  std::optional<std::uint32_t> umask;
  std::string apparmor_profile;
  bool selinux = true;
  std::vector<std::string> never_created_host_paths;
  std::vector<runtime::v1::Device> devices;
  std::vector<std::string> annotation_devices;
  bool device_ownership = false;
  std::vector<std::string> cdi_dirs;
  std::vector<std::string> hooks_dirs;
  std::string blockio_config_file;  // empty = none
  LogLimits log_limits;
  bool log_to_journal = false;
  bool restore_checkpoints = false;
  std::string criu;  // the runtimes look for it themselves; empty = in the PATH that they get

  /// kInvalidArgument names the key.
  static Result<Config> From(const settings::Settings& settings, const std::string& instance);
};

}  // namespace crisp::rund
