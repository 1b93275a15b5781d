#include "services/rund/spec/volumes.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::rund {
namespace {

// Images may nest deeper than our stack and descriptors like.
constexpr int kMaxDepth = 256;

/// Attributes of a layer's own, and labels, which the volume gets afterwards.
bool IsLeftOut(std::string_view name) {
  return name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") ||
         name == "security.selinux";
}

/// After the chown, which takes capabilities away. What the volume's file system does not keep is
/// left out.
Status CopyXattrs(int from, int to, const char* of) {
  std::string names(XATTR_LIST_MAX, '\0');
  const ssize_t length = flistxattr(from, names.data(), names.size());
  if (length < 0) {
    return errno == ENOTSUP ? Status::Ok() : Status::Errno(errno, "attributes of {}", of);
  }
  std::string_view rest(names.data(), static_cast<std::size_t>(length));
  std::string value;
  while (!rest.empty()) {
    const std::string name(rest.substr(0, rest.find('\0')));
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
    if (name.empty() || IsLeftOut(name)) continue;
    value.resize(XATTR_SIZE_MAX);
    const ssize_t size = fgetxattr(from, name.c_str(), value.data(), value.size());
    if (size < 0 && (errno == ENODATA || errno == ENOTSUP)) continue;
    if (size < 0) return Status::Errno(errno, "attribute {} of {}", name, of);
    if (fsetxattr(to, name.c_str(), value.data(), static_cast<std::size_t>(size), 0) != 0 &&
        errno != ENOTSUP) {
      return Status::Errno(errno, "attribute {} of {}", name, of);
    }
  }
  return Status::Ok();
}

Status CopyMeta(int to_dir, const char* name, const struct stat& from) {
  if (fchownat(to_dir, name, from.st_uid, from.st_gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return Status::Errno(errno, "chown {}", name);
  }
  // After the chown, which takes set-id bits away.
  if (!S_ISLNK(from.st_mode) && fchmodat(to_dir, name, from.st_mode & 07777, 0) != 0) {
    return Status::Errno(errno, "chmod {}", name);
  }
  return Status::Ok();
}

/// Last of all: what is written before changes them.
Status CopyTimes(int to_dir, const char* name, const struct stat& from) {
  const std::array<struct timespec, 2> times = {from.st_atim, from.st_mtim};
  if (utimensat(to_dir, name, times.data(), AT_SYMLINK_NOFOLLOW) == 0) return Status::Ok();
  return Status::Errno(errno, "set the times of {}", name);
}

Status CopyBytes(const CallContext& cc, int from, int to, const char* name) {
  while (true) {
    CRISP_TRY(cc.Check().While("copy {}", name));
    constexpr std::size_t kChunk = std::size_t{8} << 20U;
    const ssize_t moved = copy_file_range(from, nullptr, to, nullptr, kChunk, 0);
    if (moved > 0) continue;
    if (moved == 0) return Status::Ok();
    if (errno == EINTR) continue;
    if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS) {
      return Status::Errno(errno, "copy {}", name);
    }
    break;  // not between these file systems
  }
  std::vector<char> buffer(std::size_t{1} << 17U);
  while (true) {
    CRISP_TRY(cc.Check().While("copy {}", name));
    const ssize_t n = read(from, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Status::Errno(errno, "read {}", name);
    if (n == 0) return Status::Ok();
    CRISP_TRY(os::WriteAll(to, {buffer.data(), static_cast<std::size_t>(n)}, name));
  }
}

Status CopyFile(const CallContext& cc, int from_dir, int to_dir, const char* name,
                const struct stat& info) {
  const os::UniqueFd from(openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!from.valid()) return Status::Errno(errno, "open {}", name);
  const os::UniqueFd to(
      openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!to.valid()) return Status::Errno(errno, "create {}", name);
  CRISP_TRY(CopyBytes(cc, from.get(), to.get(), name));
  CRISP_TRY(CopyMeta(to_dir, name, info));
  return CopyXattrs(from.get(), to.get(), name);
}

Status CopyLink(int from_dir, int to_dir, const char* name) {
  std::array<char, 4097> target{};
  const ssize_t length = readlinkat(from_dir, name, target.data(), target.size() - 1);
  if (length < 0) return Status::Errno(errno, "readlink {}", name);
  if (symlinkat(target.data(), to_dir, name) != 0) return Status::Errno(errno, "symlink {}", name);
  return Status::Ok();
}

/// The names in a directory. No descriptor stays open: there is one of these for each level.
Result<std::vector<std::string>> NamesIn(int directory) {
  const int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return Status::Errno(errno, "open a directory");
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(fdopendir(fd), &closedir);
  if (listing == nullptr) {
    const int error = errno;
    close(fd);
    return Status::Errno(error, "read a directory");
  }
  std::vector<std::string> names;
  while (true) {
    errno = 0;
    const dirent* entry = readdir(listing.get());
    if (entry == nullptr) break;
    std::string name = static_cast<const char*>(entry->d_name);
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
  if (errno != 0) return Status::Errno(errno, "read a directory");
  return names;
}

/// One copy of a volume.
class Copy {
 public:
  /// `top`: the directory that is filled.
  Copy(const CallContext& cc, int top) : cc_(cc), top_(top) {}

  /// `below`: where `to_dir` is in the top, "" or "a/b/".
  Status Tree(int from_dir, int to_dir, const std::string& below, int depth) {
    if (depth > kMaxDepth) return InvalidArgument("more than {} directories deep", kMaxDepth);
    for (const std::string& name : CRISP_TRY(NamesIn(from_dir))) {
      CRISP_TRY(cc_.Check());
      CRISP_TRY(One(from_dir, to_dir, below, name, depth));
    }
    return Status::Ok();
  }

 private:
  using Inode = std::pair<dev_t, ino_t>;

  Status One(int from_dir, int to_dir, const std::string& below, const std::string& name,
             int depth) {
    const char* c_name = name.c_str();
    struct stat info {};
    if (fstatat(from_dir, c_name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
      return Status::Errno(errno, "stat {}", name);
    }
    if (S_ISDIR(info.st_mode)) {
      CRISP_TRY(Directory(from_dir, to_dir, below, name, depth, info));
      return CopyTimes(to_dir, c_name, info);
    }
    if (info.st_nlink > 1) {
      const auto [known, is_new] = linked_.try_emplace({info.st_dev, info.st_ino}, below + name);
      if (!is_new) {
        if (linkat(top_, known->second.c_str(), to_dir, c_name, 0) == 0) return Status::Ok();
        return Status::Errno(errno, "link {}", name);
      }
    }
    if (S_ISREG(info.st_mode)) {
      CRISP_TRY(CopyFile(cc_, from_dir, to_dir, c_name, info));
    } else if (S_ISLNK(info.st_mode)) {
      CRISP_TRY(CopyLink(from_dir, to_dir, c_name));
      CRISP_TRY(CopyMeta(to_dir, c_name, info));
    } else if (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
      if (mknodat(to_dir, c_name, info.st_mode, info.st_rdev) != 0) {
        return Status::Errno(errno, "mknod {}", name);
      }
      CRISP_TRY(CopyMeta(to_dir, c_name, info));
    } else {
      // A socket means nothing without its listener.
      linked_.erase({info.st_dev, info.st_ino});
      return Status::Ok();
    }
    return CopyTimes(to_dir, c_name, info);
  }

  Status Directory(int from_dir, int to_dir, const std::string& below, const std::string& name,
                   int depth, const struct stat& info) {
    const char* c_name = name.c_str();
    if (mkdirat(to_dir, c_name, 0700) != 0) return Status::Errno(errno, "mkdir {}", name);
    constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    const os::UniqueFd from(openat(from_dir, c_name, kFlags));
    const os::UniqueFd to(openat(to_dir, c_name, kFlags));
    if (!from.valid() || !to.valid()) return Status::Errno(errno, "open {}", name);
    std::string inside = below;
    inside += name + "/";
    CRISP_TRY(Tree(from.get(), to.get(), inside, depth + 1).While("{}", name));
    CRISP_TRY(CopyMeta(to_dir, c_name, info));
    return CopyXattrs(from.get(), to.get(), c_name);
  }

  const CallContext& cc_;
  int top_;
  std::map<Inode, std::string> linked_;  // those with several names, by the first
};

}  // namespace

Status MakeVolume(const CallContext& cc, const os::Beneath& rootfs,
                  const std::string& container_path, const std::string& target,
                  const HostOwner& root) {
  if (os::IsDirectory(target)) return Status::Ok();
  // Built aside and renamed: a half copy is never taken for a volume.
  const std::string staging = target + ".new";
  CRISP_TRY(os::RemoveTree(staging));
  CRISP_TRY(os::MakeDirs(staging, 0755));
  Cleanup remove([&staging] { static_cast<void>(os::RemoveTree(staging).ok()); });
  Result<os::Beneath> source = rootfs.OpenDir(container_path.substr(1));
  if (source.ok()) {
    const os::UniqueFd to = CRISP_TRY(os::Open(staging, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    CRISP_TRY(Copy(cc, to.get())
                  .Tree(source->fd(), to.get(), "", 0)
                  .While("copy the image's volume {}", container_path));
    struct stat info {};
    if (fstat(source->fd(), &info) != 0) return Status::Errno(errno, "stat {}", container_path);
    CRISP_TRY(CopyMeta(AT_FDCWD, staging.c_str(), info));
    // The directory itself may be opened as a path only.
    const os::UniqueFd from =
        CRISP_TRY(os::Open(fmt::format("/proc/self/fd/{}", source->fd()), O_RDONLY | O_DIRECTORY));
    CRISP_TRY(CopyXattrs(from.get(), to.get(), container_path.c_str()));
    CRISP_TRY(CopyTimes(AT_FDCWD, staging.c_str(), info));
  } else if (source.code() != Code::kNotFound) {
    return std::move(source).status().While("volume {} of the image", container_path);
  } else if (lchown(staging.c_str(), root.uid, root.gid) != 0) {
    return Status::Errno(errno, "chown {}", staging);
  }
  CRISP_TRY(os::Rename(staging, target));
  remove.Dismiss();
  return Status::Ok();
}

}  // namespace crisp::rund
