#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "cri/v1/api.pb.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"

namespace crisp::netd {

/// Annotations of a pod that asks for addresses of its own. They count only where the network's
/// configuration declares the capability. "10.1.2.3/24,fd00::3/64"; "02:00:00:00:00:07"; "web,www".
inline constexpr std::string_view kIpsAnnotation = "crisp.network/ips";
inline constexpr std::string_view kMacAnnotation = "crisp.network/mac";
inline constexpr std::string_view kAliasesAnnotation = "crisp.network/aliases";

/// CNI_ARGS of a pod: IgnoreUnknown and the K8S_ ones that Multus and Cilium stand on.
/// kInvalidArgument: a ';' or '=' in a name.
Result<std::string> CniArgsOf(const PodId& pod, const runtime::v1::PodSandboxConfig& config);

/// What the plugins' capabilities are fed from: portMappings (host_port > 0 only), bandwidth (the
/// kubernetes.io/ingress-bandwidth and egress-bandwidth annotations), dns, pod annotations, the
/// cgroup's path; and ips, mac and aliases from the annotations below. kInvalidArgument: a
/// bandwidth that is no quantity, a port or an address that is none.
Result<nlohmann::json> CapabilityArgsOf(const runtime::v1::PodSandboxConfig& config);

/// Those sysctls of the pod, and where it does not say of `defaults`, that are the network
/// namespace's.
struct NetSysctls {
  std::map<std::string, std::string> early;  // before the plugins run
  /// Of one interface (net.ipv4.conf.eth0.…), which is there only after the plugins.
  std::map<std::string, std::string> late;
};
NetSysctls NetSysctlsOf(const runtime::v1::PodSandboxConfig& config,
                        const std::map<std::string, std::string>& defaults);

}  // namespace crisp::netd
