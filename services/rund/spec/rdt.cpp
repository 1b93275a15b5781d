#include "services/rund/spec/rdt.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "libs/os/files.h"
#include "services/rund/spec/annotations.h"

namespace crisp::rund {
namespace {

/// Directories of resctrl itself beside those of the groups.
bool IsResctrlsOwn(std::string_view name) {
  constexpr std::array<std::string_view, 3> kNames = {"info", "mon_data", "mon_groups"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

}  // namespace

Result<nlohmann::json> BuildRdt(const runtime::v1::ContainerConfig& config,
                                const runtime::v1::PodSandboxConfig& sandbox,
                                const HostFacts& host) {
  const std::string name =
      ClassOf({.of_container = "io.kubernetes.cri.rdt-class",
               .of_pods_container = "rdt.resources.beta.kubernetes.io/container.",
               .of_pod = "rdt.resources.beta.kubernetes.io/pod"},
              config, sandbox);
  if (name.empty()) return nlohmann::json();
  if (name.starts_with('.') || name.find('/') != std::string::npos || IsResctrlsOwn(name)) {
    return InvalidArgument("the annotations ask for the RDT class \"{}\", which is no name of one",
                           name);
  }
  if (!os::Exists(host.resctrl + "/schemata")) {
    return InvalidArgument(
        "the annotations ask for the RDT class \"{}\", and this node has no resctrl file system at "
        "{}",
        name, host.resctrl);
  }
  if (!os::Exists(host.resctrl + "/" + name + "/schemata")) {
    return InvalidArgument("the annotations ask for the RDT class \"{}\", which {} has not", name,
                           host.resctrl);
  }
  return nlohmann::json{{"closID", name}};
}

}  // namespace crisp::rund
