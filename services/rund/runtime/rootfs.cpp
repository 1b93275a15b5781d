#include "services/rund/runtime/rootfs.h"

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"

namespace crisp::rund {
namespace {

Status MountOne(const crisp::imaged::v1::MountInstruction& instruction, const std::string& target) {
  if (instruction.kind() == "overlay") {
    os::Overlay overlay;
    overlay.lower_dirs = {instruction.lower_dirs().begin(), instruction.lower_dirs().end()};
    overlay.upper_dir = instruction.upper_dir();
    overlay.work_dir = instruction.work_dir();
    overlay.options = {instruction.options().begin(), instruction.options().end()};
    return os::MountOverlay(overlay, target);
  }
  if (instruction.kind() == "bind") {
    os::BindOptions options;
    for (const std::string& option : instruction.options()) {
      if (option == "ro") options.readonly = true;
      if (option == "rbind") options.recursive = true;
      if (option == "nosuid") options.extra_flags |= MS_NOSUID;
      if (option == "nodev") options.extra_flags |= MS_NODEV;
    }
    return os::BindMount(instruction.source(), target, options);
  }
  return InvalidArgument("a rootfs mount of kind '{}' is not known", instruction.kind());
}

}  // namespace

Status MountRootfs(const MountInstructions& instructions, const std::string& target) {
  if (instructions.empty()) return InvalidArgument("the image came without rootfs mounts");
  CRISP_TRY(os::MakeDirs(target));
  Cleanup undo([&target] { UnmountRootfs(target).ok(); });
  for (const auto& instruction : instructions) {
    CRISP_TRY(MountOne(instruction, target).While("mount the rootfs"));
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
