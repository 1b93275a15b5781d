#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cri/v1/api.pb.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "services/rund/spec/builder.h"

// What pods ask for by annotation because the CRI has no field for it. The names are CRI-O's, its
// present ones (umask.crio.io) and its former ones (io.kubernetes.cri-o.umask). An annotation
// counts where `allowed_annotations` of the pod's runtime handler has it; the container's own comes
// before the pod's. crisp.yaml(5) lists them.
namespace crisp::rund {

struct OptIns {
  std::optional<std::uint32_t> umask;
  bool writable_cgroups = false;  // of a container with a cgroup namespace of its own
  std::vector<runtime::v1::Device> devices;
  std::map<std::string, std::string> unified;  // files of cgroup v2, beside those of the CRI
  /// What is asked for and not given, one sentence each.
  std::vector<std::string> notes;
};

/// kInvalidArgument names the annotation.
Result<OptIns> OptInsOf(const runtime::v1::ContainerConfig& config,
                        const runtime::v1::PodSandboxConfig& sandbox, const RuntimeInfo& runtime,
                        const SpecDefaults& defaults);

/// How large /dev/shm of the pod's containers is; what is asked for and not given goes to `notes`.
/// kInvalidArgument names the annotation.
Result<Bytes> ShmSizeOf(const runtime::v1::PodSandboxConfig& sandbox, const RuntimeInfo& runtime,
                        std::vector<std::string>& notes);

}  // namespace crisp::rund
