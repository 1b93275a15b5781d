#include "libs/archive/tree_tar.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "libs/archive/tar_writer.h"
#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/os/unique_fd.h"

namespace crisp::archive {
namespace {

constexpr std::size_t kPiece = std::size_t{256} << 10U;
constexpr std::size_t kMaxXattr = 65536;

class Writer {
 public:
  Writer(const CallContext& cc, os::UniqueFd root, const Shape& shape, const TarSink& sink)
      : cc_(cc), root_(std::move(root)), shape_(shape), sink_(sink) {}

  Status All() {
    CRISP_TRY(One("."));
    return sink_(TarEnd());
  }

 private:
  /// `path` below the root, and what is below it.
  Status One(const std::string& path);
  Status Directory(const std::string& path, TarEntry& entry);
  Status File(const std::string& path, TarEntry& entry);
  /// The header of a member, as it is shaped; false: it is not wanted.
  Result<bool> Put(TarEntry& entry);
  Status Leaf(TarEntry& entry) { return Put(entry).status(); }
  Status ReadXattrs(int fd, const std::string& path, TarEntry& entry) const;
  Result<std::vector<std::string>> Names(const std::string& path) const;

  const CallContext& cc_;
  const os::UniqueFd root_;
  const Shape& shape_;
  const TarSink& sink_;
  std::map<ino_t, std::string> linked_;  // files with several names: the one that was written
  std::string piece_ = std::string(kPiece, '\0');
};

Result<bool> Writer::Put(TarEntry& entry) {
  const Shaped shaped = CRISP_TRY(shape_(entry));
  if (!shaped.wanted) return false;
  if (shaped.itself) {
    const std::string header = CRISP_TRY(TarHeader(entry));
    CRISP_TRY(sink_(header));
  }
  for (const TarEntry& after : shaped.after) {
    const std::string more = CRISP_TRY(TarHeader(after));
    CRISP_TRY(sink_(more));
  }
  return true;
}

Status Writer::ReadXattrs(int fd, const std::string& path, TarEntry& entry) const {
  std::string names(kMaxXattr, '\0');
  const ssize_t size = ::flistxattr(fd, names.data(), names.size());
  if (size < 0 && errno == EOPNOTSUPP) return Status::Ok();
  if (size < 0) return Status::Errno(errno, "{}: list extended attributes", path);
  names.resize(static_cast<std::size_t>(size));
  for (std::string_view rest = names; !rest.empty();) {
    const std::string name(rest.substr(0, rest.find('\0')));
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
    if (name.starts_with("trusted.")) continue;  // nobody's to pass on
    std::string value(kMaxXattr, '\0');
    const ssize_t length = ::fgetxattr(fd, name.c_str(), value.data(), value.size());
    if (length < 0) return Status::Errno(errno, "{}: read {}", path, name);
    value.resize(static_cast<std::size_t>(length));
    entry.xattrs[name] = std::move(value);
  }
  return Status::Ok();
}

Result<std::vector<std::string>> Writer::Names(const std::string& path) const {
  os::UniqueFd fd(::openat(root_.get(), path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return Status::Errno(errno, "open {}", path);
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::fdopendir(fd.get()), &::closedir);
  if (!directory) return Status::Errno(errno, "read {}", path);
  static_cast<void>(fd.release());  // closedir closes it
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* each = ::readdir(directory.get())) {
    const std::string_view name = each->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  if (errno != 0) return Status::Errno(errno, "read {}", path);
  std::sort(names.begin(), names.end());
  return names;
}

Status Writer::Directory(const std::string& path, TarEntry& entry) {
  const os::UniqueFd fd(::openat(root_.get(), path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return Status::Errno(errno, "open {}", path);
  CRISP_TRY(ReadXattrs(fd.get(), path, entry));
  if (!CRISP_TRY(Put(entry))) return Status::Ok();
  const std::string below = path == "." ? "" : path + "/";
  const std::vector<std::string> names = CRISP_TRY(Names(path));
  for (const std::string& name : names) CRISP_TRY(One(below + name));
  return Status::Ok();
}

Status Writer::File(const std::string& path, TarEntry& entry) {
  const os::UniqueFd fd(
      ::openat(root_.get(), path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) return Status::Errno(errno, "open {}", path);
  CRISP_TRY(ReadXattrs(fd.get(), path, entry));
  if (!CRISP_TRY(Put(entry))) return Status::Ok();
  for (std::uint64_t left = entry.size; left > 0;) {
    CRISP_TRY(cc_.Check());
    const ssize_t count =
        ::read(fd.get(), piece_.data(),
               static_cast<std::size_t>(std::min<std::uint64_t>(left, piece_.size())));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Status::Errno(errno, "read {}", path);
    if (count == 0) return DataLoss("{} became shorter while it was read", path);
    CRISP_TRY(sink_(std::string_view(piece_.data(), static_cast<std::size_t>(count))));
    left -= static_cast<std::uint64_t>(count);
  }
  return sink_(TarPadding(entry.size));
}

Status Writer::One(const std::string& path) {
  CRISP_TRY(cc_.Check());
  struct stat info {};
  if (::fstatat(root_.get(), path.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
    return Status::Errno(errno, "stat {}", path);
  TarEntry entry;
  entry.path = path == "." ? "./" : path;
  entry.mode = info.st_mode & 07777U;
  entry.uid = info.st_uid;
  entry.gid = info.st_gid;
  entry.mtime_seconds = info.st_mtim.tv_sec;
  entry.mtime_nanoseconds = static_cast<std::uint32_t>(info.st_mtim.tv_nsec);
  if (S_ISDIR(info.st_mode)) {
    entry.type = EntryType::kDirectory;
    return Directory(path, entry);
  }
  // overlayfs gives one mark of what is deleted many names: each is a mark of its own.
  const bool is_mark = S_ISCHR(info.st_mode) && info.st_rdev == 0;
  if (info.st_nlink > 1 && !is_mark) {
    const auto [first, fresh] = linked_.try_emplace(info.st_ino, path);
    if (!fresh) {
      entry.type = EntryType::kHardLink;
      entry.link = first->second;
      return Leaf(entry);
    }
  }
  if (S_ISREG(info.st_mode)) {
    entry.size = static_cast<std::uint64_t>(info.st_size);
    return File(path, entry);
  }
  if (S_ISLNK(info.st_mode)) {
    entry.type = EntryType::kSymlink;
    std::string target(4096, '\0');
    const ssize_t size = ::readlinkat(root_.get(), path.c_str(), target.data(), target.size());
    if (size < 0) return Status::Errno(errno, "read the link {}", path);
    entry.link = target.substr(0, static_cast<std::size_t>(size));
    return Leaf(entry);
  }
  if (S_ISFIFO(info.st_mode)) {
    entry.type = EntryType::kFifo;
    return Leaf(entry);
  }
  if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
    entry.type = S_ISCHR(info.st_mode) ? EntryType::kCharDevice : EntryType::kBlockDevice;
    entry.device_major = ::major(info.st_rdev);
    entry.device_minor = ::minor(info.st_rdev);
    return Leaf(entry);
  }
  return Status::Ok();  // a socket: tar has none
}

}  // namespace

Status WriteTree(const CallContext& cc, os::UniqueFd root, const Shape& shape,
                 const TarSink& sink) {
  return Writer(cc, std::move(root), shape, sink).All();
}

}  // namespace crisp::archive
