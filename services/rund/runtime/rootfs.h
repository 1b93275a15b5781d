#pragma once

#include <google/protobuf/repeated_field.h>

#include <cstdint>
#include <optional>
#include <string>

#include "crisp/imaged/v1/imaged.pb.h"
#include "libs/base/status.h"
#include "services/rund/spec/builder.h"

namespace crisp::rund {

using MountInstructions = google::protobuf::RepeatedPtrField<crisp::imaged::v1::MountInstruction>;

/// For a pod with a user namespace: the image's files show the owners that it gives them.
struct IdmappedRootfs {
  std::string userns_path;
  std::uint32_t root_uid = 0;  // on the host
  std::uint32_t root_gid = 0;
  std::string scratch_dir;  // made, used and removed meanwhile
};

/// Nothing without a user namespace.
std::optional<IdmappedRootfs> IdmappedFor(const std::optional<UserNamespace>& userns,
                                          std::string scratch_dir);

/// Mounts what imaged prepared at `target` (made when absent), one on top of the other. On failure
/// nothing stays mounted. kInvalidArgument: a kind or an option that we do not know.
Status MountRootfs(const MountInstructions& instructions, const std::string& target,
                   const std::optional<IdmappedRootfs>& idmapped = std::nullopt);
/// Takes all that is mounted at `target` away, lazily where it is busy. Idempotent.
Status UnmountRootfs(const std::string& target);

}  // namespace crisp::rund
