#include "services/rund/spec/namespaces.h"

#include "libs/base/try.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

Result<json> PidNamespace(const SpecInputs& inputs) {
  const auto& options = inputs.config.linux().security_context().namespace_options();
  switch (options.pid()) {
    case runtime::v1::NODE: return json();
    case runtime::v1::CONTAINER: return json{{"type", "pid"}};
    case runtime::v1::POD:
      if (inputs.pod_files.pid_ns_path.empty()) return json{{"type", "pid"}};
      return json{{"type", "pid"}, {"path", inputs.pod_files.pid_ns_path}};
    case runtime::v1::TARGET:
      if (inputs.target_pid_ns_path.empty()) {
        return InvalidArgument(
            "linux.security_context.namespace_options.pid is TARGET, but target_id \"{}\" names no "
            "running container of the pod",
            options.target_id());
      }
      return json{{"type", "pid"}, {"path", inputs.target_pid_ns_path}};
    default:
      return InvalidArgument("linux.security_context.namespace_options.pid: unknown mode {}",
                             static_cast<int>(options.pid()));
  }
}

/// "kernel/shm_rmid_forced" means the same as "kernel.shm_rmid_forced": whichever separator comes
/// first is the separator, the other one stands for itself.
std::string WithDots(std::string name) {
  const std::size_t first = name.find_first_of("./");
  if (first == std::string::npos || name[first] == '.') return name;
  for (char& c : name) {
    if (c == '/') {
      c = '.';
    } else if (c == '.') {
      c = '/';
    }
  }
  return name;
}

bool IsIpcSysctl(std::string_view name) {
  constexpr std::array<std::string_view, 8> kNames = {
      "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
      "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"};
  return name.starts_with("fs.mqueue.") ||
         std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

}  // namespace

Result<json> BuildNamespaces(const SpecInputs& inputs, bool privileged, const HostFacts& host) {
  const auto& options = inputs.config.linux().security_context().namespace_options();
  for (const auto* userns :
       {&options.userns_options(),
        &inputs.sandbox.linux().security_context().namespace_options().userns_options()}) {
    if (userns->mode() != runtime::v1::NODE && userns->mode() != runtime::v1::POD) {
      return InvalidArgument(
          "linux.security_context.namespace_options.userns_options.mode: only POD and NODE exist "
          "for user namespaces");
    }
    // A message that was never set says POD, the enum's zero; with a real POD come mappings.
    if (userns->mode() == runtime::v1::POD &&
        (userns->uids_size() > 0 || userns->gids_size() > 0)) {
      return Unimplemented(
          "linux.security_context.namespace_options.userns_options: user namespaces are not "
          "supported yet");
    }
  }
  json namespaces = json::array();
  const auto pin = [&namespaces](const char* type, const std::string& path) {
    if (!path.empty()) namespaces.push_back({{"type", type}, {"path", path}});
  };
  if (json pid = CRISP_TRY(PidNamespace(inputs)); !pid.is_null()) {
    namespaces.push_back(std::move(pid));
  }
  pin("network", inputs.pod_files.netns_path);
  pin("ipc", inputs.pod_files.ipcns_path);
  pin("uts", inputs.pod_files.utsns_path);
  namespaces.push_back({{"type", "mount"}});
  if (host.cgroup_v2 && !privileged) namespaces.push_back({{"type", "cgroup"}});
  return namespaces;
}

Result<std::map<std::string, std::string>> BuildSysctls(
    const google::protobuf::Map<std::string, std::string>& asked, bool host_network, bool host_ipc,
    bool host_uts) {
  std::map<std::string, std::string> sysctls;
  for (const auto& [given_name, value] : asked) {
    const std::string name = WithDots(given_name);
    const auto needs = [&given_name](std::string_view kind) {
      return InvalidArgument(
          "linux.sysctls: {} would change the host: the pod uses the host's {} namespace",
          given_name, kind);
    };
    if (name.starts_with("net.")) {
      if (host_network) return needs("network");
    } else if (IsIpcSysctl(name)) {
      if (host_ipc) return needs("ipc");
      sysctls[name] = value;
    } else if (name == "kernel.domainname") {
      if (host_uts) return needs("uts");
      sysctls[name] = value;
    } else if (name == "kernel.hostname") {
      return InvalidArgument("linux.sysctls: {} is the pod's hostname; set that field instead",
                             given_name);
    } else {
      return InvalidArgument("linux.sysctls: {} does not belong to a namespace of the pod",
                             given_name);
    }
  }
  return sysctls;
}

}  // namespace crisp::rund
