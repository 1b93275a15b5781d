#include "services/rund/runtime/volume_mounts.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/beneath.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"

namespace crisp::rund {
namespace {

Status Mount(const HostMount& mount, const v1::ImageVolume& volume, const std::string& label,
             const std::optional<UserNamespace>& userns) {
  // Beside the place itself: what is bound there may be a part of it.
  const std::string whole = mount.target + ".image";
  const auto idmapped = IdmappedFor(userns, mount.target + ".lowers");
  CRISP_TRY(MountRootfs(WithLabel(volume.image().mounts(), label), whole, idmapped));
  Cleanup undo([&whole] { log::IfError("image volume", UnmountRootfs(whole)); });
  const os::Beneath image = CRISP_TRY(os::Beneath::Open(whole, os::Scope::kInRoot));
  // Links in the image lead to places in the image.
  const os::UniqueFd part =
      CRISP_TRY(image.OpenFile(mount.image_sub_path, O_PATH).While("image_sub_path"));
  struct stat info {};
  if (fstat(part.get(), &info) != 0) return Status::Errno(errno, "image_sub_path");
  if (S_ISDIR(info.st_mode)) {
    CRISP_TRY(os::MakeDirs(mount.target, 0755));
  } else if (S_ISREG(info.st_mode)) {
    CRISP_TRY(os::WriteFile(mount.target, ""));
  } else {
    return InvalidArgument("image_sub_path {} is neither a directory nor a file",
                           mount.image_sub_path);
  }
  return os::BindMount(fmt::format("/proc/self/fd/{}", part.get()), mount.target,
                       {.readonly = true, .extra_flags = MS_NOSUID | MS_NODEV});
}

}  // namespace

MountInstructions WithLabel(MountInstructions instructions, const std::string& label) {
  if (label.empty()) return instructions;
  for (auto& instruction : instructions) {
    if (instruction.kind() == "overlay") instruction.add_options("context=" + label);
  }
  return instructions;
}

Status MountImageVolume(const HostMount& mount, const ImageVolumes& volumes,
                        const std::string& label, const std::optional<UserNamespace>& userns) {
  const auto volume = std::find_if(volumes.begin(), volumes.end(), [&mount](const auto& item) {
    return item.mount_index() == mount.index;
  });
  Status done = volume != volumes.end() ? Mount(mount, *volume, label, userns)
                                        : Internal("nobody has prepared the image");
  if (done.ok()) return done;
  return Unknown("ImageVolumeMountFailed: mounts[{}].image: {}", mount.index, done.message());
}

Status UnmountVolumes(const std::string& mounts_dir) {
  if (!os::Exists(mounts_dir)) return Status::Ok();
  return os::UnmountBelow(mounts_dir);
}

}  // namespace crisp::rund
