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

/// CNI_ARGS of a pod: IgnoreUnknown and the K8S_ ones that Multus and Cilium stand on.
/// kInvalidArgument: a ';' or '=' in a name.
Result<std::string> CniArgsOf(const PodId& pod, const runtime::v1::PodSandboxConfig& config);

/// What the plugins' capabilities are fed from: portMappings (host_port > 0 only), bandwidth (the
/// kubernetes.io/ingress-bandwidth and egress-bandwidth annotations), dns, pod annotations and the
/// cgroup's path. kInvalidArgument: a bandwidth that is no quantity, a port that is none.
Result<nlohmann::json> CapabilityArgsOf(const runtime::v1::PodSandboxConfig& config);

/// Those sysctls of the pod that are the network namespace's.
std::map<std::string, std::string> NetSysctlsOf(const runtime::v1::PodSandboxConfig& config);

/// A Kubernetes quantity, rounded up to a whole number: "10M", "1Gi", "1.5k", "2e3".
Result<std::uint64_t> ParseQuantity(std::string_view text);

}  // namespace crisp::netd
