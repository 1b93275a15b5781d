#pragma once

#include <optional>
#include <string>

#include "crisp/rund/v1/rund.pb.h"
#include "libs/base/status.h"
#include "services/rund/runtime/rootfs.h"
#include "services/rund/spec/builder.h"

namespace crisp::rund {

using ImageVolumes = google::protobuf::RepeatedPtrField<v1::ImageVolume>;

/// A root file system whose files all have this SELinux label; "" = as they are.
MountInstructions WithLabel(MountInstructions instructions, const std::string& label);

/// Mounts an image (or a directory of it) read-only, without programs, devices and set-user-ID, at
/// the place that the spec names; for a pod with a user namespace with the owners that it gives.
/// Errors begin with the word that the kubelet looks for ("ImageVolumeMountFailed"), and have
/// kUnknown.
Status MountImageVolume(const HostMount& mount, const ImageVolumes& volumes,
                        const std::string& label,
                        const std::optional<UserNamespace>& userns = std::nullopt);

/// Takes all mounts below the directory away. Idempotent.
Status UnmountVolumes(const std::string& mounts_dir);

}  // namespace crisp::rund
