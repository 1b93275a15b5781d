#pragma once

#include <nlohmann/json.hpp>

#include "cri/v1/api.pb.h"
#include "libs/base/result.h"
#include "services/rund/spec/builder.h"

namespace crisp::rund {

/// The OCI "intelRdt" of a container: the class of cache and memory bandwidth that its annotations
/// name (io.kubernetes.cri.rdt-class of the container, rdt.resources.beta.kubernetes.io/container.
/// NAME and .../pod of its pod); null without. A class is a group of the node's resctrl file
/// system, which the node's own tools have made.
/// kInvalidArgument: no name of a group, no such group, or a node without resctrl.
Result<nlohmann::json> BuildRdt(const runtime::v1::ContainerConfig& config,
                                const runtime::v1::PodSandboxConfig& sandbox,
                                const HostFacts& host);

}  // namespace crisp::rund
