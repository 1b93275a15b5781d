#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "libs/base/result.h"

namespace crisp::rund {

/// A part of an OCI runtime spec that the containers of a handler get beside what pods ask for:
/// process.env, process.rlimits, mounts, hooks, annotations, linux.sysctl, linux.resources,
/// linux.maskedPaths, linux.readonlyPaths.
/// kInvalidArgument names the file and a key that is not among these (the CRI decides it), or is of
/// the wrong type.
Result<nlohmann::json> LoadBaseSpec(const std::string& path);

/// Puts the base beneath a built spec: where both have a variable, limit, mount or key the spec's
/// counts. Masked and read-only paths are for containers that are not privileged.
void ApplyBaseSpec(const nlohmann::json& base, bool privileged, nlohmann::json& spec);

}  // namespace crisp::rund
