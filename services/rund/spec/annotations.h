#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cri/v1/api.pb.h"

namespace crisp::rund {

/// Whether a handler's `allowed_annotations` (beginnings of names) have this one.
bool AllowsAnnotation(const std::vector<std::string>& allowed, std::string_view name);

/// The annotations by which a container gets the class of something that the node has classes of.
struct ClassAnnotations {
  std::string_view of_container;       // of the container itself
  std::string_view of_pods_container;  // of its pod, for this container; its name follows
  std::string_view of_pod;             // of its pod, for all containers
};
/// The class that they name, the more special one first; empty without.
std::string ClassOf(const ClassAnnotations& annotations, const runtime::v1::ContainerConfig& config,
                    const runtime::v1::PodSandboxConfig& sandbox);

}  // namespace crisp::rund
