#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cri/v1/api.pb.h"
#include "libs/base/result.h"
#include "services/rund/spec/builder.h"

// Classes of block I/O: limits and weights that the node gives a name, and pods ask for by it. The
// file has the format that CRI-O and containerd read (goresctrl's): see crisp.yaml(5).
namespace crisp::rund {

/// What the file says, checked: {"<class>": [{"Weight": 50, "Devices": ["/dev/sd?"], ...}]}, with
/// quantities as plain numbers. kInvalidArgument and kNotFound name the file, class and field.
Result<nlohmann::json> LoadBlockioClasses(const std::string& path);

/// The class that the annotations name, the more special one first: of the container
/// (io.kubernetes.cri.blockio-class), of the pod for this container
/// (blockio.resources.beta.kubernetes.io/container.NAME), of the pod for all (.../pod). "" = none.
std::string BlockioClassOf(const runtime::v1::ContainerConfig& config,
                           const runtime::v1::PodSandboxConfig& sandbox);

/// The OCI's linux.resources.blockIO of the container's class; an empty object without one.
/// Patterns of devices are resolved now; one that matches no whole disk is noted and passed over,
/// so that one file serves many kinds of nodes. kInvalidArgument: no such class, no file of
/// classes, or a node that cannot limit block I/O.
Result<nlohmann::json> BuildBlockio(const runtime::v1::ContainerConfig& config,
                                    const runtime::v1::PodSandboxConfig& sandbox,
                                    const SpecDefaults& defaults, std::vector<std::string>& notes);

}  // namespace crisp::rund
