#include "services/imaged/core/unpack.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <string_view>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::imaged {
namespace {

using archive::EntryType;
using archive::TarEntry;

constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";
constexpr const char* kOpaqueXattr = "user.overlay.opaque";
constexpr std::uint64_t kFileBlock = 4096;  // what a file's last block takes on disk
constexpr std::size_t kMaxOpen = 64;
constexpr mode_t kImpliedMode = 0755;

/// openat2: beneath `root`, through no symbolic link at all. -1 and errno.
int OpenBeneath(int root, const std::string& path, std::uint64_t flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return static_cast<int>(
      ::syscall(SYS_openat2, root, path.empty() ? "." : path.c_str(), &how, sizeof how));
}

timespec TimeOf(const TarEntry& entry) {
  return {.tv_sec = entry.mtime_seconds, .tv_nsec = entry.mtime_nanoseconds};
}

/// Access time and modification time.
std::array<timespec, 2> Both(const timespec& time) { return {time, time}; }

bool IsWhiteout(const struct stat& info) { return S_ISCHR(info.st_mode) && info.st_rdev == 0; }

/// What a layer may set. trusted.* and user.overlay.* would speak to overlayfs in our name, other
/// security.* and system.* are the host's.
bool XattrAllowed(std::string_view name) {
  if (name == "security.capability") return true;
  return name.starts_with("user.") && !name.starts_with("user.overlay.");
}

Status SetXattrs(int fd, const TarEntry& entry) {
  for (const auto& [name, value] : entry.xattrs) {
    if (!XattrAllowed(name)) continue;
    if (::fsetxattr(fd, name.c_str(), value.data(), value.size(), 0) != 0 && errno != EOPNOTSUPP)
      return Status::Errno(errno, "{}: set {}", entry.path, name);
  }
  return Status::Ok();
}

/// Owner and mode of an open file or directory that was made with `entry.mode` by us.
Status SetOwner(int fd, const TarEntry& entry, bool mode_is_set) {
  const bool ours = entry.uid == ::geteuid() && entry.gid == ::getegid();
  if (!ours && ::fchown(fd, entry.uid, entry.gid) != 0)
    return Status::Errno(errno, "{}: chown", entry.path);
  // chown takes setuid and setgid away, and so may a write.
  if ((!mode_is_set || (entry.mode & 06000U) != 0) && ::fchmod(fd, entry.mode) != 0)
    return Status::Errno(errno, "{}: chmod", entry.path);
  return Status::Ok();
}

/// The same for what is not opened: links and devices.
Status SetAttributesAt(int directory, const std::string& name, const TarEntry& entry) {
  const bool ours = entry.uid == ::geteuid() && entry.gid == ::getegid();
  if (!ours && ::fchownat(directory, name.c_str(), entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW) != 0)
    return Status::Errno(errno, "{}: chown", entry.path);
  if (!ours && entry.type != EntryType::kSymlink &&
      ::fchmodat(directory, name.c_str(), entry.mode, 0) != 0)
    return Status::Errno(errno, "{}: chmod", entry.path);
  const auto times = Both(TimeOf(entry));
  if (::utimensat(directory, name.c_str(), times.data(), AT_SYMLINK_NOFOLLOW) != 0)
    return Status::Errno(errno, "{}: set times", entry.path);
  return Status::Ok();
}

Status CopyXattrs(int from, int to, const std::string& path) {
  const ssize_t size = ::flistxattr(from, nullptr, 0);
  if (size <= 0) return Status::Ok();
  std::string names(static_cast<std::size_t>(size), '\0');
  const ssize_t got = ::flistxattr(from, names.data(), names.size());
  if (got < 0) return Status::Errno(errno, "{}: list extended attributes", path);
  std::string value(XATTR_SIZE_MAX, '\0');
  for (std::size_t at = 0; at < static_cast<std::size_t>(got);) {
    const std::string name = names.c_str() + at;
    at += name.size() + 1;
    if (!XattrAllowed(name)) continue;
    const ssize_t length = ::fgetxattr(from, name.c_str(), value.data(), value.size());
    if (length < 0 ||
        ::fsetxattr(to, name.c_str(), value.data(), static_cast<std::size_t>(length), 0) != 0)
      return Status::Errno(errno, "{}: copy {}", path, name);
  }
  return Status::Ok();
}

Status CopyBytes(int from, int to, const std::string& path) {
  constexpr std::size_t kStep = std::size_t{1} << 30U;
  while (true) {
    const ssize_t count = ::copy_file_range(from, nullptr, to, nullptr, kStep, 0);
    if (count == 0) return Status::Ok();
    if (count < 0) return Status::Errno(errno, "copy {} up", path);
  }
}

}  // namespace

/// Something in a layer below.
struct Unpacker::Found {
  os::UniqueFd directory;  // that holds it; invalid: nothing was found
  std::string name;
  struct stat info {};
};

Result<Unpacker> Unpacker::Create(const std::string& directory, Bytes max_size) {
  os::UniqueFd root(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!root) return Status::Errno(errno, "open {}", directory);
  Unpacker unpacker(std::move(root), max_size);
  unpacker.implied_.insert("");
  unpacker.usage_ = {kFileBlock, 1};
  return unpacker;
}

Result<Unpacker::Path> Unpacker::Clean(const std::string& path) {
  std::string clean;
  std::size_t name = 0;
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = std::string_view(path).substr(at, end - at);
    at = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") return InvalidArgument("the path {} leads out of the layer", path);
    if (!clean.empty()) clean += '/';
    name = clean.size();
    clean += part;
  }
  if (name == 0) return Path{"", clean};
  return Path{clean.substr(0, name - 1), clean.substr(name)};
}

/// An open directory of this layer; valid until the next call. With `make`, what is missing on the
/// way is made and remembered as implied. kNotFound without.
Result<int> Unpacker::Directory(const std::string& path, bool make) {
  if (path.empty()) return root_.get();
  if (const auto found = open_.find(path); found != open_.end()) return found->second.get();
  int fd = OpenBeneath(root_.get(), path, O_RDONLY | O_DIRECTORY);
  if (fd < 0 && make && (errno == ENOENT || errno == ENOTDIR)) {
    CRISP_TRY(MakeImplied(path));
    fd = OpenBeneath(root_.get(), path, O_RDONLY | O_DIRECTORY);
  }
  if (fd < 0 && errno == ELOOP)
    return InvalidArgument("the path {} goes through a symbolic link", path);
  if (fd < 0 && errno == ENOTDIR)
    return InvalidArgument("the path {} goes through something that is no directory", path);
  if (fd < 0) return Status::Errno(errno, "open {}", path);
  if (open_.size() >= kMaxOpen) open_.clear();
  open_[path] = os::UniqueFd(fd);
  return fd;
}

Status Unpacker::MakeImplied(const std::string& path) {
  const Path clean = CRISP_TRY(Clean(path));
  const int parent = CRISP_TRY(Directory(clean.directory, true));
  const bool hides = whiteouts_.contains(path);
  if (hides) CRISP_TRY(Remove(parent, clean));
  if (::mkdirat(parent, clean.name.c_str(), kImpliedMode) != 0) {
    if (errno != EEXIST) return Status::Errno(errno, "make directory {}", path);
    return Status::Ok();
  }
  if (hides) CRISP_TRY(MarkOpaque(-1, path));
  implied_.insert(path);
  usage_.bytes += kFileBlock;
  ++usage_.inodes;
  return Status::Ok();
}

/// Removes what an earlier entry made at `path`: of two entries with a name the later one holds.
Status Unpacker::Remove(int directory, const Path& path) {
  const std::string full = path.Full();
  whiteouts_.erase(full);
  if (::unlinkat(directory, path.name.c_str(), 0) == 0) return Status::Ok();
  if (errno != EISDIR) return Status::Errno(errno, "replace {}", full);
  CRISP_TRY(os::RemoveTree(fmt::format("/proc/self/fd/{}/{}", directory, path.name)));
  const auto below = [&full](const std::string& other) {
    return other == full || other.starts_with(full + "/");
  };
  std::erase_if(open_, [&below](const auto& each) { return below(each.first); });
  std::erase_if(times_, [&below](const auto& each) { return below(each.first); });
  std::erase_if(implied_, below);
  std::erase_if(whiteouts_, below);
  return Status::Ok();
}

Status Unpacker::MarkOpaque(int directory, const std::string& path) {
  if (directory < 0) directory = CRISP_TRY(Directory(path, false));
  if (::fsetxattr(directory, kOpaqueXattr, "y", 1, 0) != 0)
    return Status::Errno(errno, "{}: set {}", path, kOpaqueXattr);
  return Status::Ok();
}

Status Unpacker::Whiteout(const Path& path) {
  const int parent = CRISP_TRY(Directory(path.directory, true));
  if (path.name == kOpaque) return MarkOpaque(parent, path.directory);
  if (path.name.starts_with(".wh..wh.")) return Status::Ok();  // aufs's own files
  const Path hidden{path.directory, path.name.substr(kWhiteout.size())};
  if (hidden.name.empty() || hidden.name == "." || hidden.name == "..")
    return InvalidArgument("the whiteout {} hides nothing", path.Full());
  if (::mknodat(parent, hidden.name.c_str(), S_IFCHR, ::makedev(0, 0)) == 0) {
    whiteouts_.insert(hidden.Full());
    ++usage_.inodes;
    return Status::Ok();
  }
  if (errno != EEXIST) return Status::Errno(errno, "whiteout of {}", hidden.Full());
  // A whiteout hides what is below this layer, never what the layer itself brings.
  struct stat info {};
  if (::fstatat(parent, hidden.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
    return Status::Errno(errno, "whiteout of {}", hidden.Full());
  return S_ISDIR(info.st_mode) ? MarkOpaque(-1, hidden.Full()) : Status::Ok();
}

Status Unpacker::RootAttributes(const TarEntry& entry) {
  if (entry.type != EntryType::kDirectory)
    return InvalidArgument("the entry {} would replace the root directory", entry.path);
  CRISP_TRY(SetOwner(root_.get(), entry, false));
  CRISP_TRY(SetXattrs(root_.get(), entry));
  times_[""] = TimeOf(entry);
  implied_.erase("");
  return Status::Ok();
}

Status Unpacker::MakeDirectory(const TarEntry& entry, const Path& path) {
  const int parent = CRISP_TRY(Directory(path.directory, true));
  const std::string full = path.Full();
  bool made = ::mkdirat(parent, path.name.c_str(), entry.mode) == 0;
  if (!made) {
    if (errno != EEXIST) return Status::Errno(errno, "make directory {}", full);
    struct stat info {};
    if (::fstatat(parent, path.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
      return Status::Errno(errno, "stat {}", full);
    if (!S_ISDIR(info.st_mode)) {
      const bool hides = whiteouts_.contains(full);
      CRISP_TRY(Remove(parent, path));
      if (::mkdirat(parent, path.name.c_str(), entry.mode) != 0)
        return Status::Errno(errno, "make directory {}", full);
      made = true;
      if (hides) CRISP_TRY(MarkOpaque(-1, full));
    }
  }
  if (made) {
    usage_.bytes += kFileBlock;
    ++usage_.inodes;
  }
  implied_.erase(full);
  times_[full] = TimeOf(entry);
  const bool plain = made && entry.uid == ::geteuid() && entry.gid == ::getegid() &&
                     (entry.mode & 07000U) == 0 && entry.xattrs.empty();
  if (plain) return Status::Ok();
  const int fd = CRISP_TRY(Directory(full, false));
  CRISP_TRY(SetOwner(fd, entry, false));
  return SetXattrs(fd, entry);
}

Status Unpacker::File(archive::TarReader& tar, const TarEntry& entry, const Path& path) {
  const int parent = CRISP_TRY(Directory(path.directory, true));
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  os::UniqueFd fd(::openat(parent, path.name.c_str(), kFlags, entry.mode));
  if (!fd && errno == EEXIST) {
    CRISP_TRY(Remove(parent, path));
    fd.reset(::openat(parent, path.name.c_str(), kFlags, entry.mode));
  }
  if (!fd) return Status::Errno(errno, "create {}", entry.path);
  while (true) {
    std::string_view piece = CRISP_TRY(tar.Data());
    if (piece.empty()) break;
    while (!piece.empty()) {
      const ssize_t count = ::write(fd.get(), piece.data(), piece.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return Status::Errno(errno, "write {}", entry.path);
      piece.remove_prefix(static_cast<std::size_t>(count));
    }
  }
  CRISP_TRY(SetOwner(fd.get(), entry, true));
  if (!entry.xattrs.empty()) CRISP_TRY(SetXattrs(fd.get(), entry));
  const auto times = Both(TimeOf(entry));
  if (::futimens(fd.get(), times.data()) != 0)
    return Status::Errno(errno, "{}: set times", entry.path);
  usage_.bytes += (entry.size + kFileBlock - 1) / kFileBlock * kFileBlock;
  ++usage_.inodes;
  return Status::Ok();
}

Status Unpacker::Special(const TarEntry& entry, const Path& path) {
  const int parent = CRISP_TRY(Directory(path.directory, true));
  const auto make = [&]() -> int {
    const char* name = path.name.c_str();
    const dev_t device = ::makedev(entry.device_major, entry.device_minor);
    switch (entry.type) {
      case EntryType::kSymlink: return ::symlinkat(entry.link.c_str(), parent, name);
      case EntryType::kFifo: return ::mkfifoat(parent, name, entry.mode);
      case EntryType::kCharDevice: return ::mknodat(parent, name, S_IFCHR | entry.mode, device);
      default: return ::mknodat(parent, name, S_IFBLK | entry.mode, device);
    }
  };
  if (entry.type == EntryType::kCharDevice && entry.device_major == 0 && entry.device_minor == 0)
    return InvalidArgument("{} is the character device 0/0, which would hide a file below",
                           entry.path);
  int made = make();
  if (made != 0 && errno == EEXIST) {
    CRISP_TRY(Remove(parent, path));
    made = make();
  }
  if (made != 0) return Status::Errno(errno, "create {}", entry.path);
  ++usage_.inodes;
  return SetAttributesAt(parent, path.name, entry);
}

/// False when the target is not in this layer.
Result<bool> Unpacker::TryLink(const Path& target, const Path& path) {
  if (target.Full() == path.Full()) return true;
  // Opened here, not taken from open_: the second lookup may throw the first one out.
  const os::UniqueFd from(OpenBeneath(root_.get(), target.directory, O_RDONLY | O_DIRECTORY));
  if (!from && errno == ENOENT) return false;
  if (!from)
    return InvalidArgument("the hard link {} to {} goes through a link", path.Full(),
                           target.Full());
  const int parent = CRISP_TRY(Directory(path.directory, true));
  const auto link = [&] {
    return ::linkat(from.get(), target.name.c_str(), parent, path.name.c_str(), 0);
  };
  if (whiteouts_.contains(target.Full()))
    return InvalidArgument("the hard link {} leads to the deleted {}", path.Full(), target.Full());
  int made = link();
  if (made != 0 && errno == EEXIST) {
    struct stat info {};
    if (::fstatat(from.get(), target.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return false;
    CRISP_TRY(Remove(parent, path));
    made = link();
  }
  if (made != 0 && errno == ENOENT) return false;
  if (made != 0) return Status::Errno(errno, "hard link {} to {}", path.Full(), target.Full());
  return true;
}

Status Unpacker::Link(const TarEntry& entry, const Path& path) {
  const Path target = CRISP_TRY(Clean(entry.link));
  if (target.name.empty())
    return InvalidArgument("the hard link {} leads to a directory", entry.path);
  if (!CRISP_TRY(TryLink(target, path))) late_links_.emplace_back(target, path);
  return Status::Ok();
}

Status Unpacker::Apply(archive::TarReader& tar, const TarEntry& entry) {
  const Path path = CRISP_TRY(Clean(entry.path));
  if (path.name.empty()) return RootAttributes(entry);
  if (usage_.bytes + entry.size > max_size_.count())
    return ResourceExhausted("the layer is larger than the {} bytes allowed", max_size_.count());
  if (path.name.starts_with(kWhiteout)) return Whiteout(path);
  switch (entry.type) {
    case EntryType::kFile: return File(tar, entry, path);
    case EntryType::kDirectory: return MakeDirectory(entry, path);
    case EntryType::kHardLink: return Link(entry, path);
    default: return Special(entry, path);
  }
}

Status Unpacker::Unpack(archive::TarReader& tar) {
  // The umask of this thread alone, so that modes are set by creation.
  if (::unshare(CLONE_FS) == 0) ::umask(0);
  TarEntry entry;
  while (CRISP_TRY(tar.Next(entry))) CRISP_TRY(Apply(tar, entry));
  return tar.Drain();
}

/// What overlayfs would show at `path` of the layers below: whiteouts and opaque directories count.
Result<Unpacker::Found> Unpacker::FindBelow(const std::vector<std::string>& parents,
                                            const std::string& path) {
  for (const std::string& parent : parents) {
    os::UniqueFd at(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!at) return Status::Errno(errno, "open {}", parent);
    bool opaque = false;
    std::string_view rest = path;
    while (true) {
      const std::string name(rest.substr(0, rest.find('/')));
      const bool last = name.size() == rest.size();
      struct stat info {};
      if (::fstatat(at.get(), name.empty() ? "." : name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno != ENOENT) return Status::Errno(errno, "stat {} in {}", path, parent);
        break;  // look in the layer below
      }
      if (IsWhiteout(info)) return Found{};
      if (last) return Found{std::move(at), name.empty() ? "." : name, info};
      if (!S_ISDIR(info.st_mode)) return Found{};
      at = os::UniqueFd(
          ::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!at) return Status::Errno(errno, "open {} in {}", path, parent);
      std::array<char, 2> mark{};
      opaque = opaque || (::fgetxattr(at.get(), kOpaqueXattr, mark.data(), mark.size()) == 1 &&
                          mark[0] == 'y');
      rest.remove_prefix(name.size() + 1);
    }
    if (opaque) return Found{};
  }
  return Found{};
}

Status Unpacker::CopyUp(const std::vector<std::string>& parents, const Path& target) {
  const std::string full = target.Full();
  const Found found = CRISP_TRY(FindBelow(parents, full));
  if (!found.directory || !(S_ISREG(found.info.st_mode) || S_ISLNK(found.info.st_mode)))
    return InvalidArgument("a hard link leads to {}, which no layer has", full);
  const int parent = CRISP_TRY(Directory(target.directory, true));
  const std::array<timespec, 2> times = {found.info.st_atim, found.info.st_mtim};
  if (S_ISLNK(found.info.st_mode)) {
    std::string link(4096, '\0');
    const ssize_t size =
        ::readlinkat(found.directory.get(), found.name.c_str(), link.data(), link.size() - 1);
    if (size < 0) return Status::Errno(errno, "read link {}", full);
    link.resize(static_cast<std::size_t>(size));
    if (::symlinkat(link.c_str(), parent, target.name.c_str()) != 0 ||
        ::fchownat(parent, target.name.c_str(), found.info.st_uid, found.info.st_gid,
                   AT_SYMLINK_NOFOLLOW) != 0)
      return Status::Errno(errno, "copy {} up", full);
  } else {
    const os::UniqueFd from(
        ::openat(found.directory.get(), found.name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    const os::UniqueFd to(::openat(parent, target.name.c_str(),
                                   O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!from || !to) return Status::Errno(errno, "copy {} up", full);
    CRISP_TRY(CopyBytes(from.get(), to.get(), full));
    if (::fchown(to.get(), found.info.st_uid, found.info.st_gid) != 0 ||
        ::fchmod(to.get(), found.info.st_mode & 07777U) != 0)
      return Status::Errno(errno, "copy {} up", full);
    CRISP_TRY(CopyXattrs(from.get(), to.get(), full));
    usage_.bytes += static_cast<std::uint64_t>(found.info.st_size);
  }
  ++usage_.inodes;
  if (::utimensat(parent, target.name.c_str(), times.data(), AT_SYMLINK_NOFOLLOW) != 0)
    return Status::Errno(errno, "copy {} up: set times", full);
  return Status::Ok();
}

Status Unpacker::Finish(const std::vector<std::string>& parents) {
  for (const auto& [target, path] : late_links_) {
    if (CRISP_TRY(TryLink(target, path))) continue;
    CRISP_TRY(CopyUp(parents, target));
    if (!CRISP_TRY(TryLink(target, path)))
      return InvalidArgument("the hard link {} leads to {}, which is not there", path.Full(),
                             target.Full());
  }
  late_links_.clear();
  for (const std::string& path : implied_) {
    const Found found = CRISP_TRY(FindBelow(parents, path));
    if (!found.directory || !S_ISDIR(found.info.st_mode)) continue;
    const int fd = CRISP_TRY(Directory(path, false));
    if (::fchown(fd, found.info.st_uid, found.info.st_gid) != 0 ||
        ::fchmod(fd, found.info.st_mode & 07777U) != 0)
      return Status::Errno(errno, "attributes of {}", path);
    const os::UniqueFd from(::openat(found.directory.get(), found.name.c_str(),
                                     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!from) return Status::Errno(errno, "open {} in a layer below", path);
    CRISP_TRY(CopyXattrs(from.get(), fd, path));
    times_[path] = found.info.st_mtim;
  }
  implied_.clear();
  for (const auto& [path, time] : times_) {
    const Path clean = CRISP_TRY(Clean(path));
    const int parent = CRISP_TRY(Directory(clean.directory, false));
    const auto times = Both(time);
    if (::utimensat(parent, path.empty() ? "." : clean.name.c_str(), times.data(),
                    AT_SYMLINK_NOFOLLOW) != 0)
      return Status::Errno(errno, "{}: set times", path);
  }
  times_.clear();
  open_.clear();
  return Status::Ok();
}

}  // namespace crisp::imaged
