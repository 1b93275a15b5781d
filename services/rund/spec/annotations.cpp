#include "services/rund/spec/annotations.h"

#include <algorithm>

namespace crisp::rund {
namespace {

using Annotations = google::protobuf::Map<std::string, std::string>;

std::string ValueOf(const Annotations& annotations, const std::string& name) {
  const auto found = annotations.find(name);
  return found == annotations.end() ? std::string() : found->second;
}

}  // namespace

bool AllowsAnnotation(const std::vector<std::string>& allowed, std::string_view name) {
  return std::any_of(allowed.begin(), allowed.end(),
                     [name](const std::string& prefix) { return name.starts_with(prefix); });
}

std::string ClassOf(const ClassAnnotations& annotations, const runtime::v1::ContainerConfig& config,
                    const runtime::v1::PodSandboxConfig& sandbox) {
  std::string name = ValueOf(config.annotations(), std::string(annotations.of_container));
  if (name.empty()) {
    name = ValueOf(sandbox.annotations(),
                   std::string(annotations.of_pods_container) + config.metadata().name());
  }
  return name.empty() ? ValueOf(sandbox.annotations(), std::string(annotations.of_pod)) : name;
}

}  // namespace crisp::rund
