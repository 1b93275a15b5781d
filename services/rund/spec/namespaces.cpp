#include "services/rund/spec/namespaces.h"

#include <algorithm>
#include <array>
#include <limits>

#include "libs/base/try.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

std::string ModeName(runtime::v1::NamespaceMode mode) {
  std::string name = runtime::v1::NamespaceMode_Name(mode);
  return name.empty() ? fmt::format("mode {}", static_cast<int>(mode)) : name;
}

Result<json> PidNamespace(const SpecInputs& inputs) {
  const auto& options = inputs.config.linux().security_context().namespace_options();
  if (SeesHostPids(options, inputs.sandbox)) return json();
  switch (options.pid()) {
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

constexpr std::string_view kUserns = "linux.security_context.namespace_options.userns_options";

Result<os::IdRange> OneRange(
    const google::protobuf::RepeatedPtrField<runtime::v1::IDMapping>& mappings,
    std::string_view name) {
  if (mappings.size() != 1) {
    return InvalidArgument("{}.{}: exactly one mapping is needed, there are {}", kUserns, name,
                           mappings.size());
  }
  const runtime::v1::IDMapping& mapping = mappings[0];
  if (mapping.container_id() != 0) {
    return InvalidArgument("{}.{}: id 0 of the container is not mapped", kUserns, name);
  }
  const std::uint64_t end = std::uint64_t{mapping.host_id()} + mapping.length();
  if (mapping.length() == 0 || end > std::numeric_limits<std::uint32_t>::max()) {
    return InvalidArgument("{}.{}: {} ids from {} on are no range", kUserns, name, mapping.length(),
                           mapping.host_id());
  }
  return os::IdRange{0, mapping.host_id(), mapping.length()};
}

/// The network and the IPC are the pod's: a container can say so, or nothing (POD is both).
Status CheckShared(std::string_view name, runtime::v1::NamespaceMode asked,
                   runtime::v1::NamespaceMode of_pod) {
  if (asked == runtime::v1::POD || asked == of_pod) return Status::Ok();
  return InvalidArgument(
      "linux.security_context.namespace_options.{} is {}, but containers share that of their pod, "
      "which has {}",
      name, ModeName(asked), ModeName(of_pod));
}

Status CheckAgainstPod(const SpecInputs& inputs) {
  const auto& own = inputs.config.linux().security_context().namespace_options();
  const auto& of_pod = inputs.sandbox.linux().security_context().namespace_options();
  CRISP_TRY(CheckShared("network", own.network(), of_pod.network()));
  CRISP_TRY(CheckShared("ipc", own.ipc(), of_pod.ipc()));
  if (own.pid() != runtime::v1::NODE || !inputs.pod_files.userns) return Status::Ok();
  return InvalidArgument(
      "linux.security_context.namespace_options.pid is NODE, but the pod has a user namespace of "
      "its own");
}

/// What a container says of user namespaces must be what its pod has.
Status CheckUserns(const SpecInputs& inputs) {
  const auto& options = inputs.config.linux().security_context().namespace_options();
  const auto& userns = options.userns_options();
  // POD is the enum's zero: without mappings it says no more than nothing does.
  if (userns.mode() == runtime::v1::POD && userns.uids_size() + userns.gids_size() == 0) {
    return Status::Ok();
  }
  const auto ids = CRISP_TRY(UsernsIdsOf(options));
  const auto& pod = inputs.pod_files.userns;
  const bool same = ids.has_value() == pod.has_value() &&
                    (!ids || (ids->uids == pod->uids && ids->gids == pod->gids));
  if (same) return Status::Ok();
  return InvalidArgument("{}: it is not that of the pod sandbox", kUserns);
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

/// Of a name with dots.
bool IsIpcSysctl(std::string_view name) {
  constexpr std::array<std::string_view, 8> kNames = {
      "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
      "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"};
  return name.starts_with("fs.mqueue.") ||
         std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

}  // namespace

bool SeesHostPids(const runtime::v1::NamespaceOption& options,
                  const runtime::v1::PodSandboxConfig& sandbox) {
  if (options.pid() == runtime::v1::NODE) return true;
  const auto of_pod = sandbox.linux().security_context().namespace_options().pid();
  return options.pid() == runtime::v1::POD && of_pod == runtime::v1::NODE;
}

Result<std::optional<UsernsIds>> UsernsIdsOf(const runtime::v1::NamespaceOption& options) {
  if (!options.has_userns_options()) return std::optional<UsernsIds>();
  const auto& userns = options.userns_options();
  if (userns.mode() == runtime::v1::NODE) {
    if (userns.uids_size() + userns.gids_size() == 0) return std::optional<UsernsIds>();
    return InvalidArgument("{}: mappings are given, but the mode is NODE", kUserns);
  }
  if (userns.mode() != runtime::v1::POD) {
    return InvalidArgument("{}.mode: only POD and NODE exist for user namespaces", kUserns);
  }
  UsernsIds ids;
  ids.uids = CRISP_TRY(OneRange(userns.uids(), "uids"));
  ids.gids = CRISP_TRY(OneRange(userns.gids(), "gids"));
  if (ids.uids.count != ids.gids.count) {
    return InvalidArgument("{}: {} uids and {} gids; the mappings must have the same length",
                           kUserns, ids.uids.count, ids.gids.count);
  }
  for (const auto& [mode, name] :
       {std::pair{options.network(), "network"}, std::pair{options.ipc(), "ipc"},
        std::pair{options.pid(), "pid"}}) {
    if (mode != runtime::v1::NODE) continue;
    return InvalidArgument("{}: with {} NODE there is only the host's user namespace", kUserns,
                           name);
  }
  return std::optional<UsernsIds>(ids);
}

json MappingOf(const os::IdRange& ids) {
  return json::array({{{"containerID", ids.inside}, {"hostID", ids.outside}, {"size", ids.count}}});
}

Result<json> BuildNamespaces(const SpecInputs& inputs, bool privileged, const HostFacts& host) {
  CRISP_TRY(CheckAgainstPod(inputs));
  CRISP_TRY(CheckUserns(inputs));
  json namespaces = json::array();
  const auto pin = [&namespaces](const char* type, const std::string& path) {
    if (!path.empty()) namespaces.push_back({{"type", type}, {"path", path}});
  };
  if (inputs.pod_files.userns) pin("user", inputs.pod_files.userns->path);
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

SysctlKind SysctlKindOf(const std::string& given) {
  const std::string name = WithDots(given);
  if (IsIpcSysctl(name)) return SysctlKind::kIpc;
  if (name == "kernel.domainname") return SysctlKind::kUts;
  return name.starts_with("net.") ? SysctlKind::kNet : SysctlKind::kOther;
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
    switch (SysctlKindOf(name)) {
      case SysctlKind::kNet:
        if (host_network) return needs("network");
        break;
      case SysctlKind::kIpc:
        if (host_ipc) return needs("ipc");
        sysctls[name] = value;
        break;
      case SysctlKind::kUts:
        if (host_uts) return needs("uts");
        sysctls[name] = value;
        break;
      case SysctlKind::kOther:
        if (name == "kernel.hostname") {
          return InvalidArgument("linux.sysctls: {} is the pod's hostname; set that field instead",
                                 given_name);
        }
        return InvalidArgument("linux.sysctls: {} does not belong to a namespace of the pod",
                               given_name);
    }
  }
  return sysctls;
}

}  // namespace crisp::rund
