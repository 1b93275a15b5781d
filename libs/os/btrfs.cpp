#include "libs/os/btrfs.h"

#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <filesystem>
#include <utility>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::os {
namespace {

constexpr ino_t kRootInode = 256;  // of every subvolume

struct Place {
  UniqueFd directory;
  std::string name;
};

Result<Place> PlaceOf(const std::string& path) {
  const std::filesystem::path split(path);
  Place place;
  place.name = split.filename();
  if (place.name.empty() || place.name.size() > BTRFS_SUBVOL_NAME_MAX)
    return InvalidArgument("'{}' is no name for a subvolume", path);
  place.directory = CRISP_TRY(Open(split.parent_path(), O_RDONLY | O_DIRECTORY));
  return place;
}

template <typename Args>
void SetName(Args& args, const std::string& name) {
  name.copy(args.name, sizeof args.name - 1);
}

}  // namespace

Result<bool> IsOnBtrfs(const std::string& path) {
  struct statfs info {};
  if (::statfs(path.c_str(), &info) != 0) return Status::Errno(errno, "statfs {}", path);
  return info.f_type == BTRFS_SUPER_MAGIC;
}

bool IsSubvolume(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) || info.st_ino != kRootInode)
    return false;
  const Result<bool> btrfs = IsOnBtrfs(path);
  return btrfs.ok() && *btrfs;
}

Status MakeSubvolume(const std::string& path) {
  const Place place = CRISP_TRY(PlaceOf(path));
  btrfs_ioctl_vol_args args{};
  SetName(args, place.name);
  if (::ioctl(place.directory.get(), BTRFS_IOC_SUBVOL_CREATE, &args) == 0) return Status::Ok();
  return Status::Errno(errno, "make the subvolume {}", path);
}

Status SnapshotSubvolume(const std::string& source, const std::string& path) {
  const Place place = CRISP_TRY(PlaceOf(path));
  const UniqueFd from = CRISP_TRY(Open(source, O_RDONLY | O_DIRECTORY));
  btrfs_ioctl_vol_args_v2 args{};
  args.fd = from.get();
  SetName(args, place.name);
  if (::ioctl(place.directory.get(), BTRFS_IOC_SNAP_CREATE_V2, &args) == 0) return Status::Ok();
  return Status::Errno(errno, "make {}, a snapshot of {}", path, source);
}

Result<bool> DeleteSubvolume(const std::string& path) {
  if (!IsSubvolume(path)) return false;
  const Place place = CRISP_TRY(PlaceOf(path));
  btrfs_ioctl_vol_args args{};
  SetName(args, place.name);
  if (::ioctl(place.directory.get(), BTRFS_IOC_SNAP_DESTROY, &args) == 0) return true;
  // Not ours to do; or it has others in it.
  if (errno == EPERM || errno == EACCES || errno == ENOTEMPTY) return false;
  return Status::Errno(errno, "delete the subvolume {}", path);
}

std::optional<timespec> SubvolumeMade(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0 || info.st_ino != kRootInode) return std::nullopt;
  btrfs_ioctl_get_subvol_info_args subvolume{};
  // 1 is no failure either.
  if (::ioctl(fd, BTRFS_IOC_GET_SUBVOL_INFO, &subvolume) < 0) return std::nullopt;
  return timespec{static_cast<time_t>(subvolume.otime.sec),
                  static_cast<long>(subvolume.otime.nsec)};
}

bool ChangedSince(const struct stat& file, const std::optional<timespec>& since) {
  return !since || std::pair(file.st_ctim.tv_sec, file.st_ctim.tv_nsec) >
                       std::pair(since->tv_sec, since->tv_nsec);
}

}  // namespace crisp::os
