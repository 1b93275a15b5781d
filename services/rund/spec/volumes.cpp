#include "services/rund/spec/volumes.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::rund {
namespace {

// Images may nest deeper than our stack and descriptors like.
constexpr int kMaxDepth = 256;

Status CopyMeta(int to_dir, const char* name, const struct stat& from) {
  if (fchownat(to_dir, name, from.st_uid, from.st_gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return Status::Errno(errno, "chown {}", name);
  }
  // After the chown, which takes set-id bits away.
  if (!S_ISLNK(from.st_mode) && fchmodat(to_dir, name, from.st_mode & 07777, 0) != 0) {
    return Status::Errno(errno, "chmod {}", name);
  }
  const std::array<struct timespec, 2> times = {from.st_atim, from.st_mtim};
  if (utimensat(to_dir, name, times.data(), AT_SYMLINK_NOFOLLOW) != 0) {
    return Status::Errno(errno, "set the times of {}", name);
  }
  return Status::Ok();
}

Status CopyFile(int from_dir, int to_dir, const char* name) {
  const os::UniqueFd from(openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!from.valid()) return Status::Errno(errno, "open {}", name);
  const os::UniqueFd to(
      openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!to.valid()) return Status::Errno(errno, "create {}", name);
  std::vector<char> buffer;
  while (true) {
    constexpr std::size_t kChunk = std::size_t{1} << 20U;
    const ssize_t moved = copy_file_range(from.get(), nullptr, to.get(), nullptr, kChunk, 0);
    if (moved > 0) continue;
    if (moved == 0) return Status::Ok();
    if (errno == EINTR) continue;
    if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS) {
      return Status::Errno(errno, "copy {}", name);
    }
    break;  // not between these file systems
  }
  buffer.resize(std::size_t{1} << 17U);
  while (true) {
    const ssize_t n = read(from.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Status::Errno(errno, "read {}", name);
    if (n == 0) return Status::Ok();
    CRISP_TRY(os::WriteAll(to.get(), {buffer.data(), static_cast<std::size_t>(n)}, name));
  }
}

Status CopyLink(int from_dir, int to_dir, const char* name) {
  std::array<char, 4097> target{};
  const ssize_t length = readlinkat(from_dir, name, target.data(), target.size() - 1);
  if (length < 0) return Status::Errno(errno, "readlink {}", name);
  if (symlinkat(target.data(), to_dir, name) != 0) return Status::Errno(errno, "symlink {}", name);
  return Status::Ok();
}

Status CopyTree(int from_dir, int to_dir, int depth) {
  if (depth > kMaxDepth) return InvalidArgument("more than {} directories deep", kMaxDepth);
  // A descriptor of its own: closedir closes it.
  const int listing_fd = openat(from_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (listing_fd < 0) return Status::Errno(errno, "open a directory");
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(fdopendir(listing_fd), &closedir);
  if (listing == nullptr) {
    const int error = errno;
    close(listing_fd);
    return Status::Errno(error, "read a directory");
  }
  while (true) {
    errno = 0;
    const dirent* entry = readdir(listing.get());
    if (entry == nullptr) break;
    const char* name = static_cast<const char*>(entry->d_name);
    if (std::string_view(name) == "." || std::string_view(name) == "..") continue;
    struct stat info {};
    if (fstatat(from_dir, name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
      return Status::Errno(errno, "stat {}", name);
    }
    if (S_ISDIR(info.st_mode)) {
      if (mkdirat(to_dir, name, 0700) != 0) return Status::Errno(errno, "mkdir {}", name);
      constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
      const os::UniqueFd from(openat(from_dir, name, kFlags));
      const os::UniqueFd to(openat(to_dir, name, kFlags));
      if (!from.valid() || !to.valid()) return Status::Errno(errno, "open {}", name);
      CRISP_TRY(CopyTree(from.get(), to.get(), depth + 1).While("{}", name));
    } else if (S_ISREG(info.st_mode)) {
      CRISP_TRY(CopyFile(from_dir, to_dir, name));
    } else if (S_ISLNK(info.st_mode)) {
      CRISP_TRY(CopyLink(from_dir, to_dir, name));
    } else if (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
      if (mknodat(to_dir, name, info.st_mode, info.st_rdev) != 0) {
        return Status::Errno(errno, "mknod {}", name);
      }
    } else {
      continue;  // a socket means nothing without its listener
    }
    CRISP_TRY(CopyMeta(to_dir, name, info));
  }
  if (errno != 0) return Status::Errno(errno, "read a directory");
  return Status::Ok();
}

}  // namespace

Status MakeVolume(const os::Beneath& rootfs, const std::string& container_path,
                  const std::string& target) {
  if (os::IsDirectory(target)) return Status::Ok();
  // Built aside and renamed: a half copy is never taken for a volume.
  const std::string staging = target + ".new";
  CRISP_TRY(os::RemoveTree(staging));
  CRISP_TRY(os::MakeDirs(staging, 0755));
  Cleanup remove([&staging] { static_cast<void>(os::RemoveTree(staging).ok()); });
  Result<os::Beneath> source = rootfs.OpenDir(container_path.substr(1));
  if (source.ok()) {
    const os::UniqueFd to = CRISP_TRY(os::Open(staging, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    CRISP_TRY(
        CopyTree(source->fd(), to.get(), 0).While("copy the image's volume {}", container_path));
    struct stat info {};
    if (fstat(source->fd(), &info) != 0) return Status::Errno(errno, "stat {}", container_path);
    CRISP_TRY(CopyMeta(AT_FDCWD, staging.c_str(), info));
  } else if (source.code() != Code::kNotFound) {
    return std::move(source).status().While("volume {} of the image", container_path);
  }
  CRISP_TRY(os::Rename(staging, target));
  remove.Dismiss();
  return Status::Ok();
}

}  // namespace crisp::rund
