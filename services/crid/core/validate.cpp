#include "services/crid/core/validate.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "libs/base/try.h"

namespace crisp::crid {
namespace {

using runtime::v1::NamespaceMode;

bool HasDotDot(std::string_view path) {
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    if (path.substr(0, slash) == "..") return true;
    if (slash == std::string_view::npos) break;
    path.remove_prefix(slash + 1);
  }
  return false;
}

bool HasControl(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20U || c == 0x7f; });
}

Status CheckName(std::string_view field, const std::string& value) {
  if (value.empty()) return InvalidArgument("{} is required", field);
  if (value.size() > 253) return InvalidArgument("{} is longer than 253 bytes", field);
  if (HasControl(value)) return InvalidArgument("{} has control characters", field);
  return Status::Ok();
}

Status CheckHostname(const std::string& hostname) {
  if (hostname.empty()) return Status::Ok();
  if (hostname.size() > 63) {
    return InvalidArgument("hostname is longer than 63 characters ({})", hostname.size());
  }
  const bool good = std::all_of(hostname.begin(), hostname.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
  });
  if (!good) return InvalidArgument("hostname '{}' has characters that no host name has", hostname);
  return Status::Ok();
}

Status CheckNamespaces(std::string_view field, const runtime::v1::NamespaceOption& options) {
  for (const auto& [name, mode] :
       {std::pair{"network", options.network()}, std::pair{"ipc", options.ipc()}}) {
    if (mode != NamespaceMode::POD && mode != NamespaceMode::NODE) {
      return InvalidArgument("{}.{}: only POD and NODE are possible", field, name);
    }
  }
  if (!runtime::v1::NamespaceMode_IsValid(options.pid())) {
    return InvalidArgument("{}.pid: {} is no namespace mode", field,
                           static_cast<int>(options.pid()));
  }
  if (!options.target_id().empty() && options.pid() != NamespaceMode::TARGET) {
    return InvalidArgument("{}.target_id is set, and pid is not TARGET", field);
  }
  return Status::Ok();
}

/// Each of them becomes a part of a line of resolv.conf.
Status CheckDns(const runtime::v1::DNSConfig& dns) {
  for (const auto& [name, values] :
       {std::pair{"servers", &dns.servers()}, std::pair{"searches", &dns.searches()},
        std::pair{"options", &dns.options()}}) {
    for (const std::string& value : *values) {
      if (HasControl(value)) {
        return InvalidArgument("dns_config.{}: one has control characters", name);
      }
    }
  }
  return Status::Ok();
}

Status CheckPorts(const runtime::v1::PodSandboxConfig& config) {
  for (int i = 0; i < config.port_mappings_size(); ++i) {
    const auto& port = config.port_mappings(i);
    if (port.host_port() < 0 || port.host_port() > 65535) {
      return InvalidArgument("port_mappings[{}].host_port: {} is no port", i, port.host_port());
    }
    if (port.container_port() < 0 || port.container_port() > 65535) {
      return InvalidArgument("port_mappings[{}].container_port: {} is no port", i,
                             port.container_port());
    }
    if (!runtime::v1::Protocol_IsValid(port.protocol())) {
      return InvalidArgument("port_mappings[{}].protocol: {} is no protocol", i,
                             static_cast<int>(port.protocol()));
    }
  }
  return Status::Ok();
}

}  // namespace

Status Validate(const runtime::v1::RunPodSandboxRequest& request) {
  if (!request.has_config()) return InvalidArgument("config is required");
  const auto& config = request.config();
  if (!config.has_metadata()) return InvalidArgument("config.metadata is required");
  if (config.has_windows()) return InvalidArgument("config.windows: this node is not Windows");
  CRISP_TRY(CheckName("config.metadata.name", config.metadata().name()));
  CRISP_TRY(CheckName("config.metadata.namespace", config.metadata().namespace_()));
  CRISP_TRY(CheckName("config.metadata.uid", config.metadata().uid()));
  CRISP_TRY(CheckHostname(config.hostname()).While("config"));
  const std::string& logs = config.log_directory();
  if (!logs.empty() && logs.front() != '/') {
    return InvalidArgument("config.log_directory must be an absolute path, not '{}'", logs);
  }
  if (HasDotDot(logs)) return InvalidArgument("config.log_directory must not have '..' in it");
  CRISP_TRY(CheckDns(config.dns_config()).While("config"));
  CRISP_TRY(CheckPorts(config).While("config"));
  const std::string& cgroup = config.linux().cgroup_parent();
  if (HasDotDot(cgroup)) {
    return InvalidArgument("config.linux.cgroup_parent must not have '..' in it");
  }
  CRISP_TRY(CheckNamespaces("config.linux.security_context.namespace_options",
                            config.linux().security_context().namespace_options()));
  return Status::Ok();
}

Status Validate(const runtime::v1::CreateContainerRequest& request) {
  if (!request.has_config()) return InvalidArgument("config is required");
  const auto& config = request.config();
  if (!config.has_metadata()) return InvalidArgument("config.metadata is required");
  if (config.has_windows()) return InvalidArgument("config.windows: this node is not Windows");
  CRISP_TRY(CheckName("config.metadata.name", config.metadata().name()));
  if (config.image().image().empty()) return InvalidArgument("config.image.image is required");
  const std::string& log = config.log_path();
  if (!log.empty() && log.front() == '/') {
    return InvalidArgument("config.log_path must be relative to the pod's log_directory, not '{}'",
                           log);
  }
  if (HasDotDot(log)) return InvalidArgument("config.log_path must not have '..' in it");
  for (int i = 0; i < config.mounts_size(); ++i) {
    const auto& mount = config.mounts(i);
    if (mount.container_path().empty()) {
      return InvalidArgument("config.mounts[{}].container_path is required", i);
    }
  }
  return CheckNamespaces("config.linux.security_context.namespace_options",
                         config.linux().security_context().namespace_options());
}

}  // namespace crisp::crid
