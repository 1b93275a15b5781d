#include "services/rund/runtime/rootfs.h"

#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/image_mount.h"
#include "libs/os/mount.h"

namespace crisp::rund {
namespace {

/// An overlay cannot be ID-mapped, its lower layers can: each by a mount of its own, which the
/// overlay keeps when the place where it was is gone; one that is an image has no place at all.
/// What is written above belongs to the ids of the user namespace as it is.
Status MountIdmappedOverlay(os::Overlay overlay, const std::string& target,
                            const IdmappedRootfs& idmapped) {
  const os::UniqueFd userns = CRISP_TRY(os::Open(idmapped.userns_path, O_RDONLY));
  CRISP_TRY(os::MakeDirs(idmapped.scratch_dir, 0700));
  Cleanup remove([&idmapped] {
    log::IfError("ID-mapped layers", os::UnmountBelow(idmapped.scratch_dir));
    log::IfError("ID-mapped layers", os::RemoveTree(idmapped.scratch_dir));
  });
  overlay.userns = userns.get();  // of images
  int number = 0;
  for (std::string& lower : overlay.lower_dirs) {
    if (os::IsImage(lower)) continue;
    const std::string mapped = fmt::format("{}/{}", idmapped.scratch_dir, number++);
    CRISP_TRY(os::MakeDirs(mapped, 0700));
    CRISP_TRY(os::IdmappedBindMount(lower, mapped, userns.get()));
    lower = mapped;
  }
  if (!overlay.upper_dir.empty() &&
      lchown(overlay.upper_dir.c_str(), idmapped.root_uid, idmapped.root_gid) != 0) {
    return Status::Errno(errno, "chown {}", overlay.upper_dir);
  }
  return os::MountOverlay(overlay, target);
}

Status Bind(const std::string& source, const std::string& target, const os::BindOptions& options,
            const std::optional<IdmappedRootfs>& idmapped) {
  if (!idmapped) return os::BindMount(source, target, options);
  const os::UniqueFd userns = CRISP_TRY(os::Open(idmapped->userns_path, O_RDONLY));
  return os::IdmappedBindMount(source, target, userns.get(), options);
}

Status AddOption(const std::string& option, os::BindOptions& options) {
  if (option == "ro") {
    options.readonly = true;
  } else if (option == "rbind") {
    options.recursive = true;
  } else if (option == "nosuid") {
    options.extra_flags |= MS_NOSUID;
  } else if (option == "nodev") {
    options.extra_flags |= MS_NODEV;
  } else if (option == "noexec") {
    options.extra_flags |= MS_NOEXEC;
  } else if (option != "rw" && option != "bind") {
    return InvalidArgument("a bind mount has no option '{}' here", option);
  }
  return Status::Ok();
}

Status MountOne(const crisp::imaged::v1::MountInstruction& instruction, const std::string& target,
                const std::optional<IdmappedRootfs>& idmapped) {
  if (instruction.kind() == "overlay") {
    os::Overlay overlay;
    overlay.lower_dirs = {instruction.lower_dirs().begin(), instruction.lower_dirs().end()};
    overlay.upper_dir = instruction.upper_dir();
    overlay.work_dir = instruction.work_dir();
    overlay.options = {instruction.options().begin(), instruction.options().end()};
    if (idmapped) return MountIdmappedOverlay(std::move(overlay), target, *idmapped);
    return os::MountOverlay(overlay, target);
  }
  if (instruction.kind() == "bind") {
    os::BindOptions options;
    for (const std::string& option : instruction.options()) {
      CRISP_TRY(AddOption(option, options));
    }
    return Bind(instruction.source(), target, options, idmapped);
  }
  return InvalidArgument("a rootfs mount of kind '{}' is not known", instruction.kind());
}

}  // namespace

std::optional<IdmappedRootfs> IdmappedFor(const std::optional<UserNamespace>& userns,
                                          std::string scratch_dir) {
  if (!userns) return std::nullopt;
  return IdmappedRootfs{userns->path, userns->uids.outside, userns->gids.outside,
                        std::move(scratch_dir)};
}

Status MountRootfs(const MountInstructions& instructions, const std::string& target,
                   const std::optional<IdmappedRootfs>& idmapped) {
  if (instructions.empty()) return InvalidArgument("the image came without rootfs mounts");
  CRISP_TRY(os::MakeDirs(target));
  Cleanup undo([&target] { UnmountRootfs(target).ok(); });
  for (const auto& instruction : instructions) {
    CRISP_TRY(MountOne(instruction, target, idmapped).While("mount the rootfs"));
  }
  undo.Dismiss();
  return Status::Ok();
}

Status UnmountRootfs(const std::string& target) {
  while (CRISP_TRY(os::IsMountPoint(target))) {
    if (os::Unmount(target).ok()) continue;
    CRISP_TRY(os::Unmount(target, os::UnmountHow::kLazy));
  }
  return Status::Ok();
}

}  // namespace crisp::rund
