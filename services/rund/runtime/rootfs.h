#pragma once

#include <google/protobuf/repeated_field.h>

#include <string>

#include "crisp/imaged/v1/imaged.pb.h"
#include "libs/base/status.h"

namespace crisp::rund {

using MountInstructions = google::protobuf::RepeatedPtrField<crisp::imaged::v1::MountInstruction>;

/// Mounts what imaged prepared at `target` (made when absent), one on top of the other. On failure
/// nothing stays mounted. kInvalidArgument: a kind that we do not know.
Status MountRootfs(const MountInstructions& instructions, const std::string& target);
/// Takes all that is mounted at `target` away, lazily where it is busy. Idempotent.
Status UnmountRootfs(const std::string& target);

}  // namespace crisp::rund
