#pragma once

#include "cri/v1/api.pb.h"
#include "libs/base/status.h"

namespace crisp::crid {

// What can be told wrong about a request without asking anybody; kInvalidArgument (or
// kUnimplemented for what crisp does not offer yet) with the name of the field.
Status Validate(const runtime::v1::RunPodSandboxRequest& request);
Status Validate(const runtime::v1::CreateContainerRequest& request);

}  // namespace crisp::crid
