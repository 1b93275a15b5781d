#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cri/v1/api.pb.h"
#include "libs/base/result.h"
#include "services/rund/spec/builder.h"
#include "services/rund/spec/capabilities.h"

namespace crisp::rund {

/// The built-in profile, the meaning of RuntimeDefault: every system call that libseccomp knows is
/// allowed unless our tables deny it (EPERM) or free it with a capability that the container has;
/// what nobody knows yet answers ENOSYS, so that programs fall back to what they know.
nlohmann::json DefaultSeccomp(const CapabilitySets& capabilities);

/// A profile file as an OCI seccomp section. Takes the OCI form and the one of the container tools
/// (archMap, name, includes/excludes by capability and architecture). kInvalidArgument says what is
/// wrong with it.
Result<nlohmann::json> NormaliseSeccomp(std::string_view profile,
                                        const CapabilitySets& capabilities);

/// The section that the CRI asks for; null = unconfined (also: no profile at all, or privileged).
/// The deprecated path counts when the message is absent.
/// kInvalidArgument: unknown type, a Localhost profile without an absolute path or with bad
/// contents; kNotFound: a profile that is not there.
Result<nlohmann::json> BuildSeccomp(const runtime::v1::LinuxContainerSecurityContext& security,
                                    const CapabilitySets& capabilities,
                                    const SpecDefaults& defaults, bool privileged);

/// Whether the profile at `path` can be given to containers, whatever capabilities they have.
/// kInvalidArgument: what is wrong with it; kNotFound and others: it cannot be read.
Status CheckSeccompProfile(const std::string& path);

/// Hands the section to the runtime the fastest way that it knows: as it is, or (crun before 1.21,
/// which has no cache of its own) compiled, as an annotation.
Status PlaceSeccomp(nlohmann::json seccomp, const RuntimeInfo& runtime,
                    const SpecDefaults& defaults, nlohmann::json& spec);

/// What a pod says of its own process, crisp-pause, which has no rights, no root file system and no
/// system calls to speak of: only what cannot be meant is refused. kInvalidArgument names it.
Status CheckSandboxSecurity(const runtime::v1::LinuxSandboxSecurityContext& security);

}  // namespace crisp::rund
