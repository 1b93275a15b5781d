#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <string>

#include "services/rund/core/parts.h"
#include "services/rund/runtime/exec_process.h"

namespace crisp::rund {

/// What a command in a running container needs, whoever serves its streams: the container's own
/// environment, user, capabilities and limits. Reads the bundle.
/// Errors: kInvalidArgument: no command; kNotFound; kFailedPrecondition: it does not run.
Result<ExecArgs> PlanExec(const Parts& parts, const ContainerId& id,
                          const google::protobuf::RepeatedPtrField<std::string>& command, bool tty,
                          std::string scratch_dir);

/// The record of a container that runs. kNotFound, kFailedPrecondition.
Result<ContainerRef> FindRunning(const State& state, const ContainerId& id);

}  // namespace crisp::rund
