#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "libs/base/result.h"
#include "libs/os/beneath.h"
#include "services/rund/spec/builder.h"
#include "services/rund/spec/image_config.h"
#include "services/rund/spec/user.h"

namespace crisp::rund {

/// The command line: the CRI's command replaces the image's entrypoint and drops its cmd; args
/// alone replace the cmd. kInvalidArgument: nothing to run at all.
Result<std::vector<std::string>> BuildArgs(const runtime::v1::ContainerConfig& config,
                                           const ImageConfig& image);

/// PATH, HOSTNAME, TERM (tty) < the node's < the image's < the CRI's, then HOME of the user if
/// nobody set it. A later value replaces the earlier one in its place.
/// kInvalidArgument: a name or value that an environment, or the JSON of a runtime spec, cannot
/// carry.
Result<std::vector<std::string>> BuildEnv(const runtime::v1::ContainerConfig& config,
                                          const ImageConfig& image, const std::string& hostname,
                                          const std::string& home,
                                          std::span<const std::string> node = {});

/// Absolute and without dots: the CRI's, else the image's, else "/".
std::string WorkingDir(const runtime::v1::ContainerConfig& config, const ImageConfig& image);

/// Makes what is missing of `path` in the rootfs (resolved in-root); what it makes belongs to the
/// user.
Status MakeWorkingDir(const os::Beneath& rootfs, const std::string& path, const ResolvedUser& user);

/// The signal that stops the container: the CRI's, else the image's, else SIGTERM. An unknown one
/// of the image becomes a note.
Result<int> StopSignal(const runtime::v1::ContainerConfig& config, const ImageConfig& image,
                       std::vector<std::string>& notes);

/// OCI rlimits, held below what the daemon itself may give. kInvalidArgument: unknown name.
Result<nlohmann::json> BuildRlimits(const SpecDefaults& defaults, std::vector<std::string>& notes);

/// The value asked for, or the lowest that the daemon may give (with a note).
int OomScoreAdj(std::int64_t asked, const HostFacts& host, std::vector<std::string>& notes);

}  // namespace crisp::rund
