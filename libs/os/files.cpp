#include "libs/os/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>

#include "libs/base/try.h"

namespace crisp::os {
namespace {

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using UniqueDir = std::unique_ptr<DIR, CloseDir>;

bool IsDots(const char* name) {
  return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/// A directory below `parent` that is no symlink and on the same mount.
int OpenSameMount(int parent, const char* name) {
  open_how how = {};
  how.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS;
  return static_cast<int>(::syscall(SYS_openat2, parent, name, &how, sizeof(how)));
}

/// Removes a tree without recursion and with a bounded number of descriptors: what lies deeper than
/// that is first moved up to the top directory.
class TreeRemover {
 public:
  TreeRemover(std::string path, std::uint64_t budget) : path_(std::move(path)), left_(budget) {}

  /// False when the budget is used up first.
  Result<bool> Run(UniqueFd top) {
    CRISP_TRY(Push(std::move(top), ""));
    while (!levels_.empty()) {
      if (left_ == 0) return false;
      CRISP_TRY(Advance());
    }
    return true;
  }

 private:
  static constexpr std::size_t kMaxDepth = 128;
  static constexpr int kMaxRescans = 16;

  struct Level {
    UniqueDir dir;
    std::string name;  // in its parent; empty for the top
    int rescans = 0;
  };

  Status Push(UniqueFd fd, std::string name) {
    DIR* dir = ::fdopendir(fd.get());
    if (dir == nullptr) return Status::Errno(errno, "list {}", Where(name));
    static_cast<void>(fd.release());  // closedir closes it
    levels_.push_back({UniqueDir(dir), std::move(name), 0});
    return Status::Ok();
  }

  std::string Where(const std::string& last) const {
    std::string where = path_;
    for (const Level& level : levels_) {
      if (!level.name.empty()) where.append("/").append(level.name);
    }
    if (!last.empty()) where.append("/").append(last);
    return where;
  }

  Status Fail(int error, const std::string& name) const {
    if (error == EXDEV || error == EBUSY) {
      return {Code::kFailedPrecondition, fmt::format("remove {}: a mount point", Where(name))};
    }
    return Status::Errno(error, "remove {}", Where(name));
  }

  /// One entry of the deepest level, or the end of that level.
  Status Advance() {
    Level& level = levels_.back();
    const int fd = ::dirfd(level.dir.get());
    errno = 0;
    const dirent* entry = ::readdir(level.dir.get());
    if (entry == nullptr) {
      if (errno != 0 && errno != ENOENT) return Status::Errno(errno, "list {}", Where(""));
      return Leave();
    }
    if (IsDots(entry->d_name)) return Status::Ok();
    if (entry->d_type != DT_DIR) {
      if (::unlinkat(fd, entry->d_name, 0) == 0 || errno == ENOENT) return Spend();
      if (errno != EISDIR && !(errno == EPERM && entry->d_type == DT_UNKNOWN)) {
        return Fail(errno, entry->d_name);
      }
    }
    if (::unlinkat(fd, entry->d_name, AT_REMOVEDIR) == 0 || errno == ENOENT) return Spend();
    if (errno != ENOTEMPTY && errno != EEXIST) return Fail(errno, entry->d_name);
    const std::string name = entry->d_name;
    if (levels_.size() >= kMaxDepth) return MoveUp(fd, name);
    UniqueFd child(OpenSameMount(fd, name.c_str()));
    if (!child && errno == ENOENT) return Status::Ok();
    if (!child) return Fail(errno, name);
    return Push(std::move(child), name);
  }

  /// Under a name that is free: the tree, or who began to remove it, may have such names already.
  Status MoveUp(int directory, const std::string& name) {
    const int top = ::dirfd(levels_.front().dir.get());
    while (true) {
      const std::string to = fmt::format(".deep-{}", moved_++);
      if (::renameat2(directory, name.c_str(), top, to.c_str(), RENAME_NOREPLACE) == 0 ||
          errno == ENOENT) {
        return Spend();
      }
      if (errno != EEXIST) return Fail(errno, name);
    }
  }

  Status Spend() {
    --left_;
    return Status::Ok();
  }

  Status Leave() {
    Level& level = levels_.back();
    const bool top = levels_.size() == 1;
    const int removed = top ? ::rmdir(path_.c_str())
                            : ::unlinkat(::dirfd(levels_[levels_.size() - 2].dir.get()),
                                         level.name.c_str(), AT_REMOVEDIR);
    if (removed != 0 && errno != ENOENT) {
      // Somebody (or our own move from the deep) put something in while we read.
      if ((errno == ENOTEMPTY || errno == EEXIST) && level.rescans++ < kMaxRescans + moved_) {
        ::rewinddir(level.dir.get());
        return Status::Ok();
      }
      const int error = errno;
      return Fail(error, "");
    }
    levels_.pop_back();
    return Spend();
  }

  std::string path_;
  std::uint64_t left_;
  std::vector<Level> levels_;
  int moved_ = 0;
};

Status WriteWith(const std::string& path, std::string_view text, int flags, mode_t mode) {
  const UniqueFd fd = CRISP_TRY(Open(path, O_WRONLY | flags, mode));
  return WriteAll(fd.get(), text, path);
}

}  // namespace

Result<UniqueFd> Open(const std::string& path, int flags, mode_t mode) {
  int fd = -1;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return Status::Errno(errno, "open {}", path);
  return UniqueFd(fd);
}

Result<std::string> ReadAll(int fd, std::string_view name, Bytes limit) {
  constexpr std::size_t kChunk = 16384;
  std::string text;
  struct stat info = {};
  if (::fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0) {
    text.reserve(std::min<std::size_t>(static_cast<std::size_t>(info.st_size) + 1,
                                       static_cast<std::size_t>(limit.count()) + 1));
  }
  while (true) {
    const std::size_t used = text.size();
    const std::size_t room = std::max(kChunk, text.capacity() - used);
    text.resize(used + room);
    const ssize_t got = ::read(fd, text.data() + used, room);
    if (got < 0) {
      text.resize(used);
      if (errno == EINTR) continue;
      return Status::Errno(errno, "read {}", name);
    }
    text.resize(used + static_cast<std::size_t>(got));
    if (text.size() > limit.count()) {
      return ResourceExhausted("read {}: more than {} bytes", name, limit.count());
    }
    if (got == 0) return text;
  }
}

Result<std::string> ReadFile(const std::string& path, Bytes limit) {
  const UniqueFd fd = CRISP_TRY(Open(path, O_RDONLY));
  return ReadAll(fd.get(), path, limit);
}

Status ReadAt(int fd, std::uint64_t offset, std::span<char> into, std::string_view name) {
  while (!into.empty()) {
    const ssize_t count = ::pread(fd, into.data(), into.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Status::Errno(errno, "read {}", name);
    if (count == 0) return DataLoss("{}: is shorter than it was", name);
    offset += static_cast<std::uint64_t>(count);
    into = into.subspan(static_cast<std::size_t>(count));
  }
  return Status::Ok();
}

Status WriteAll(int fd, std::string_view text, std::string_view name) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return Status::Errno(errno, "write {}", name);
    }
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return Status::Ok();
}

Status WriteFile(const std::string& path, std::string_view text, mode_t mode) {
  return WriteWith(path, text, O_CREAT | O_TRUNC, mode);
}

Status WriteExisting(const std::string& path, std::string_view text) {
  const UniqueFd fd = CRISP_TRY(Open(path, O_WRONLY));
  ssize_t written = 0;
  do {
    written = ::write(fd.get(), text.data(), text.size());
  } while (written < 0 && errno == EINTR);
  if (written < 0) return Status::Errno(errno, "write '{}' to {}", text, path);
  if (static_cast<std::size_t>(written) != text.size()) {
    return Internal("write '{}' to {}: only {} bytes were taken", text, path, written);
  }
  return Status::Ok();
}

Status AppendFile(const std::string& path, std::string_view text, mode_t mode) {
  return WriteWith(path, text, O_CREAT | O_APPEND, mode);
}

Status MakeDirs(const std::string& path, mode_t mode) {
  if (path.empty()) return InvalidArgument("make directory: the path is empty");
  // The common case first: it is there, or only the last one is missing.
  if (IsDirectory(path)) return Status::Ok();
  std::size_t end = 0;
  while (end != std::string::npos) {
    end = path.find('/', end + 1);
    const std::string part = path.substr(0, end);
    if (part.empty() || part.back() == '/') continue;
    if (::mkdir(part.c_str(), mode) == 0) {
      if (::chmod(part.c_str(), mode) != 0) return Status::Errno(errno, "chmod {}", part);
      continue;
    }
    const int error = errno;
    if (error == EEXIST || error == EROFS || error == EACCES || error == EPERM) {
      if (IsDirectory(part)) continue;
      if (error == EEXIST) return Status::Errno(ENOTDIR, "make directory {}", part);
    }
    return Status::Errno(error, "make directory {}", part);
  }
  return Status::Ok();
}

Status RemoveTree(const std::string& path) {
  return RemoveSome(path, std::numeric_limits<std::uint64_t>::max()).status();
}

Result<bool> RemoveSome(const std::string& path, std::uint64_t entries) {
  std::string clean = path;
  while (clean.size() > 1 && clean.back() == '/') clean.pop_back();
  if (clean.empty() || clean == "/") return InvalidArgument("remove tree: bad path '{}'", path);
  // A file or a symlink goes by itself; what it points to is none of our business.
  if (::unlink(clean.c_str()) == 0 || errno == ENOENT || errno == ENOTDIR) return true;
  if (errno == EBUSY) return FailedPrecondition("remove {}: a mount point", clean);
  if (errno != EISDIR && errno != EPERM) return Status::Errno(errno, "remove {}", clean);
  if (::rmdir(clean.c_str()) == 0 || errno == ENOENT) return true;
  if (errno == EBUSY) return FailedPrecondition("remove {}: a mount point", clean);

  Result<UniqueFd> opened = Open(clean, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (opened.code() == Code::kNotFound) return true;
  UniqueFd top = CRISP_TRY(std::move(opened));
  struct statx info = {};
  if (::statx(top.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS, &info) == 0 &&
      (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0) {
    return FailedPrecondition("remove {}: a mount point", clean);
  }
  return TreeRemover(clean, entries).Run(std::move(top));
}

Status RemoveFile(const std::string& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT || errno == ENOTDIR) return Status::Ok();
  return Status::Errno(errno, "remove {}", path);
}

Status RemoveDir(const std::string& path) {
  if (::rmdir(path.c_str()) == 0 || errno == ENOENT) return Status::Ok();
  const int error = errno == EEXIST ? ENOTEMPTY : errno;
  return Status::Errno(error, "remove directory {}", path);
}

Status Rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return Status::Ok();
  return Status::Errno(errno, "rename {} to {}", from, to);
}

Status Symlink(const std::string& target, const std::string& path) {
  if (::symlink(target.c_str(), path.c_str()) == 0) return Status::Ok();
  return Status::Errno(errno, "symlink {}", path);
}

Result<std::string> ReadLink(const std::string& path) {
  std::array<char, 4096> buffer;
  const ssize_t length = ::readlink(path.c_str(), buffer.data(), buffer.size());
  if (length < 0) return Status::Errno(errno, "readlink {}", path);
  return std::string(buffer.data(), static_cast<std::size_t>(length));
}

bool Exists(const std::string& path) {
  struct stat info = {};
  return ::lstat(path.c_str(), &info) == 0;
}

bool IsDirectory(const std::string& path) {
  struct stat info = {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

Result<std::vector<std::string>> ListDir(const std::string& path) {
  const UniqueDir dir(::opendir(path.c_str()));
  if (!dir) return Status::Errno(errno, "list {}", path);
  std::vector<std::string> names;
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    if (entry == nullptr) break;
    if (!IsDots(entry->d_name)) names.emplace_back(entry->d_name);
  }
  if (errno != 0) return Status::Errno(errno, "list {}", path);
  std::sort(names.begin(), names.end());
  return names;
}

bool IsAtOrBelow(std::string_view path, std::string_view directory) {
  if (directory == "/") return true;
  return path.starts_with(directory) &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

Status SyncFilesystem(const std::string& path) {
  const UniqueFd fd = CRISP_TRY(Open(path, O_RDONLY));
  if (::syncfs(fd.get()) != 0) return Status::Errno(errno, "syncfs {}", path);
  return Status::Ok();
}

Result<std::string> BootId() {
  std::string id = CRISP_TRY(ReadFile("/proc/sys/kernel/random/boot_id"));
  while (!id.empty() && id.back() == '\n') id.pop_back();
  return id;
}

}  // namespace crisp::os
