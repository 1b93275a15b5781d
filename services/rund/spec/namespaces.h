#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "libs/base/result.h"
#include "services/rund/spec/builder.h"

namespace crisp::rund {

/// The ids of a pod's user namespace; nothing where it is the host's. kInvalidArgument: a mode
/// other than POD and NODE, other than one mapping of uids and one of gids, unlike lengths, a
/// mapping that does not begin with id 0, or the host's network, IPC or PIDs (which a user
/// namespace cannot own).
struct UsernsIds {
  os::IdRange uids;
  os::IdRange gids;
};
Result<std::optional<UsernsIds>> UsernsIdsOf(const runtime::v1::NamespaceOption& options);

/// Whether a container with these options has the host's PIDs: by itself, or as its pod's.
bool SeesHostPids(const runtime::v1::NamespaceOption& options,
                  const runtime::v1::PodSandboxConfig& sandbox);

/// The OCI form of a mapping.
nlohmann::json MappingOf(const os::IdRange& ids);

/// The OCI "namespaces" list: the pod's network, ipc and uts by path (none: the host's), the PID
/// namespace by mode, a mount namespace, and a cgroup namespace on cgroup v2 unless privileged.
/// The pod's user namespace comes first, since it owns the others.
/// kInvalidArgument: an unknown mode, TARGET without a target, another network, IPC or user
/// namespace than the pod's. (POD is the enum's zero: what most clients mean by it is nothing.)
Result<nlohmann::json> BuildNamespaces(const SpecInputs& inputs, bool privileged,
                                       const HostFacts& host);

/// Which namespace a sysctl belongs to. Its name may have dots or slashes.
enum class SysctlKind { kIpc, kUts, kNet, kOther };
SysctlKind SysctlKindOf(const std::string& name);

/// The sandbox's sysctls that the container's spec carries: those of the ipc and uts namespaces,
/// with dots. net.* is left out: the pod's network namespace has them already.
/// kInvalidArgument: one that belongs to a namespace which the pod shares with the host, or to
/// none.
Result<std::map<std::string, std::string>> BuildSysctls(
    const google::protobuf::Map<std::string, std::string>& asked, bool host_network, bool host_ipc,
    bool host_uts);

}  // namespace crisp::rund
