#include "libs/os/image_mount.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include <charconv>
#include <utility>

#include "libs/base/try.h"
#include "libs/os/mount.h"
#include "libs/os/mount_context.h"

namespace crisp::os {
namespace {

// EROFS from a file without a loop device came with 6.12, layers of an overlay by descriptor with
// 6.13; that those may be mounts which are attached nowhere, with 6.15.
constexpr std::pair<int, int> kLayersByDescriptor = {6, 15};

/// "6.1.0-18-amd64"
std::pair<int, int> VersionOf(std::string_view release) {
  std::pair<int, int> version{0, 0};
  const char* const end = release.data() + release.size();
  const auto major = std::from_chars(release.data(), end, version.first);
  if (major.ptr != end && *major.ptr == '.') std::from_chars(major.ptr + 1, end, version.second);
  return version;
}

}  // namespace

bool IsImage(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

Result<UniqueFd> MountImage(const std::string& path, int userns) {
  const UniqueFd context(::fsopen("erofs", FSOPEN_CLOEXEC));
  if (!context && errno == ENODEV)
    return FailedPrecondition("mount the image {}: this kernel has no EROFS", path);
  if (!context) return Status::Errno(errno, "fsopen erofs");
  if (::fsconfig(context.get(), FSCONFIG_SET_STRING, "source", path.c_str(), 0) != 0 ||
      ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    if (errno == ENOTBLK)
      return FailedPrecondition(
          "mount the image {}: this kernel's EROFS takes block devices alone "
          "(CONFIG_EROFS_FS_BACKED_BY_FILE)",
          path);
    return ContextError(errno, context.get(), fmt::format("mount the image {}", path));
  }
  UniqueFd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY));
  if (!mount) return ContextError(errno, context.get(), fmt::format("mount the image {}", path));
  if (userns < 0) return mount;
  struct mount_attr attributes {};
  attributes.attr_set = MOUNT_ATTR_IDMAP;
  attributes.userns_fd = static_cast<std::uint64_t>(userns);
  if (::mount_setattr(mount.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0)
    return Status::Errno(errno, "{}: its file system cannot be ID-mapped", path);
  return mount;
}

Status CheckImageLayers(const std::string& release, const std::string& proc) {
  utsname kernel{};
  ::uname(&kernel);
  const std::string shown = release.empty() ? kernel.release : release;
  if (VersionOf(shown) < kLayersByDescriptor)
    return FailedPrecondition("Linux {} is too old: overlayfs takes images as layers since {}.{}",
                              shown, kLayersByDescriptor.first, kLayersByDescriptor.second);
  for (const char* type : {"erofs", "overlay"})
    if (!KernelHasFilesystem(type, proc)) return FailedPrecondition("this kernel has no {}", type);
  return Status::Ok();
}

}  // namespace crisp::os
