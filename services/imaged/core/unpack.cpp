#include "services/imaged/core/unpack.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <string_view>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/imaged/core/unpack_internal.h"

namespace crisp::imaged {
namespace {

using archive::EntryType;
using archive::TarEntry;

constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";
constexpr std::uint64_t kStatBlock = 512;
constexpr std::uint64_t kLongLink = 60;  // a longer symbolic link takes a block
constexpr std::uint64_t kLinkBlock = 4096;
constexpr std::size_t kMaxName = 255;
constexpr std::size_t kMaxDepth = 256;  // of directories
constexpr int kMaxLinks = 40;           // symbolic links in one path, as the kernel has it
constexpr std::size_t kMaxOpen = 64;
constexpr std::size_t kNode = 96;  // of memory, beside a remembered name
constexpr mode_t kImpliedMode = 0755;
constexpr mode_t kSetGid = S_ISGID;

timespec TimeOf(const TarEntry& entry) {
  return {.tv_sec = entry.mtime_seconds, .tv_nsec = entry.mtime_nanoseconds};
}

Status SetXattrs(int fd, const TarEntry& entry) {
  for (const auto& [name, value] : entry.xattrs) {
    if (!archive::IsHarmlessXattr(name)) continue;
    if (::fsetxattr(fd, name.c_str(), value.data(), value.size(), 0) != 0 && errno != EOPNOTSUPP)
      return Status::Errno(errno, "{}: set {}", entry.path, name);
  }
  return Status::Ok();
}

/// Of names in their order: this one and those below it.
template <typename Names>
void EraseTree(Names& names, const std::string& name) {
  constexpr char kAfterSlash = '/' + 1;
  names.erase(name);
  names.erase(names.lower_bound(name + '/'), names.lower_bound(name + kAfterSlash));
}

/// What we make has the entry's owner already. Asked once: for each file it would be two system
/// calls more.
bool IsOurs(const TarEntry& entry) {
  static const uid_t kUid = ::geteuid();
  static const gid_t kGid = ::getegid();
  return entry.uid == kUid && entry.gid == kGid;
}

/// Owner and mode of an open file that was made with `entry.mode` by us.
Status SetOwner(int fd, const TarEntry& entry) {
  if (!IsOurs(entry) && ::fchown(fd, entry.uid, entry.gid) != 0)
    return Status::Errno(errno, "{}: chown", entry.path);
  // chown takes setuid and setgid away, and so may a write.
  if ((entry.mode & 06000U) != 0 && ::fchmod(fd, entry.mode) != 0)
    return Status::Errno(errno, "{}: chmod", entry.path);
  return Status::Ok();
}

/// Owner, mode and extended attributes of a directory, but for setgid: what is made in it would
/// inherit its group.
Status SetDirectory(int fd, const TarEntry& entry) {
  if (::fchown(fd, entry.uid, entry.gid) != 0) return Status::Errno(errno, "{}: chown", entry.path);
  if (::fchmod(fd, entry.mode & ~kSetGid) != 0)
    return Status::Errno(errno, "{}: chmod", entry.path);
  return SetXattrs(fd, entry);
}

/// The same for what is not opened: links and devices.
Status SetAttributesAt(int directory, const std::string& name, const TarEntry& entry) {
  const bool ours = IsOurs(entry);
  if (!ours && ::fchownat(directory, name.c_str(), entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW) != 0)
    return Status::Errno(errno, "{}: chown", entry.path);
  if (!ours && entry.type != EntryType::kSymlink &&
      ::fchmodat(directory, name.c_str(), entry.mode, 0) != 0)
    return Status::Errno(errno, "{}: chmod", entry.path);
  const auto times = internal::Both(TimeOf(entry));
  if (::utimensat(directory, name.c_str(), times.data(), AT_SYMLINK_NOFOLLOW) != 0)
    return Status::Errno(errno, "{}: set times", entry.path);
  return Status::Ok();
}

}  // namespace

int internal::OpenBeneath(int root, const std::string& path, std::uint64_t flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return static_cast<int>(
      ::syscall(SYS_openat2, root, path.empty() ? "." : path.c_str(), &how, sizeof how));
}

using internal::OpenBeneath;

Result<Unpacker> Unpacker::Create(const std::string& directory, const UnpackLimits& limits) {
  os::UniqueFd root(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!root) return Status::Errno(errno, "open {}", directory);
  // Whatever it inherited from a directory with setgid would go on to all that is made in it.
  if (::fchown(root.get(), ::geteuid(), ::getegid()) != 0 ||
      ::fchmod(root.get(), kImpliedMode) != 0)
    return Status::Errno(errno, "attributes of {}", directory);
  Unpacker unpacker(std::move(root), limits);
  unpacker.implied_.insert("");
  unpacker.late_[""];
  unpacker.usage_.inodes = 1;
  return unpacker;
}

/// ".." goes up in the name itself, as it does for everybody who unpacks layers.
Result<Unpacker::Path> Unpacker::Clean(const std::string& path) {
  std::vector<std::string_view> parts;
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = std::string_view(path).substr(at, end - at);
    at = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (parts.empty()) return InvalidArgument("the path {} leads out of the layer", path);
      parts.pop_back();
      continue;
    }
    if (part.size() > kMaxName)
      return ResourceExhausted("the name {:.64}… is longer than {} bytes", part, kMaxName);
    parts.push_back(part);
  }
  if (parts.size() > kMaxDepth)
    return ResourceExhausted("the path {:.64}… has more than {} parts", path, kMaxDepth);
  Path clean;
  for (const std::string_view part : parts) {
    if (!clean.directory.empty()) clean.directory += '/';
    clean.directory += std::exchange(clean.name, std::string(part));
  }
  return clean;
}

/// The target of a symbolic link of this layer; nothing where there is none.
Result<std::optional<std::string>> Unpacker::OwnLink(const std::string& directory,
                                                     const std::string& name) const {
  std::array<char, PATH_MAX> target{};
  const os::UniqueFd fd(OpenBeneath(root_.get(), directory, O_PATH | O_DIRECTORY));
  if (!fd) return std::optional<std::string>();
  const ssize_t size = ::readlinkat(fd.get(), name.c_str(), target.data(), target.size());
  if (size < 0) return std::optional<std::string>();
  return std::optional<std::string>(std::in_place, target.data(), static_cast<std::size_t>(size));
}

/// Where `directory` leads by the links that `link` tells of, with the layer as the root of every
/// absolute one; the rest after the first missing part is taken as it is.
Result<std::string> Unpacker::FollowLinks(const std::string& directory, const LinkAt& link) {
  std::vector<std::string> ahead;  // the next part last
  const auto push = [&ahead](const std::string& path) {
    std::size_t end = path.size();
    while (true) {
      const std::size_t slash = end == 0 ? std::string::npos : path.rfind('/', end - 1);
      const std::size_t begin = slash == std::string::npos ? 0 : slash + 1;
      if (end > begin) ahead.push_back(path.substr(begin, end - begin));
      if (slash == std::string::npos) return;
      end = slash;
    }
  };
  push(directory);
  std::string at;
  int links = 0;
  while (!ahead.empty()) {
    const std::string part = std::move(ahead.back());
    ahead.pop_back();
    if (part == ".") continue;
    if (part == "..") {
      const std::size_t slash = at.rfind('/');
      at.resize(slash == std::string::npos ? 0 : slash);
      continue;
    }
    const std::string next = at.empty() ? part : at + "/" + part;
    if (next.size() >= PATH_MAX)
      return ResourceExhausted("the path {:.64}… is too long behind its links", directory);
    const std::optional<std::string> text = CRISP_TRY(link(at, part));
    if (!text) {
      at = next;
      continue;
    }
    if (++links > kMaxLinks)
      return InvalidArgument("the path {} goes through too many symbolic links", directory);
    if (text->starts_with('/')) at.clear();
    push(*text);
  }
  return at;
}

/// The path with its directory free of symbolic links; the directory itself need not exist.
Result<Unpacker::Path> Unpacker::Locate(Path path) {
  if (path.directory.empty() || open_.contains(path.directory)) return path;
  os::UniqueFd fd(OpenBeneath(root_.get(), path.directory, O_RDONLY | O_DIRECTORY));
  if (fd) {
    if (open_.size() >= kMaxOpen) open_.clear();
    open_[path.directory] = std::move(fd);
  } else if (errno == ELOOP) {
    path.directory = CRISP_TRY(FollowLinks(
        path.directory,
        [this](const std::string& at, const std::string& name) { return OwnLink(at, name); }));
    return Clean(path.Full());
  }
  return path;
}

Status Unpacker::Account(std::uint64_t inodes) {
  usage_.inodes += inodes;
  if (usage_.inodes > limits_.max_inodes)
    return ResourceExhausted("the layer has more than the {} files allowed", limits_.max_inodes);
  return Status::Ok();
}

/// A sparse file's size counts in full: whoever reads or copies it gets all of it.
Status Unpacker::AccountSize(std::uint64_t bytes) {
  if (bytes > limits_.max_size.count() - contents_)
    return ResourceExhausted("the layer is larger than the {} bytes allowed",
                             limits_.max_size.count());
  contents_ += bytes;
  return Status::Ok();
}

/// Before the names are kept, which have so many bytes.
Status Unpacker::Remember(std::size_t name) {
  names_ += name + kNode;
  if (names_ > limits_.max_names.count())
    return ResourceExhausted(
        "the names of the layer's directories, links and deletions take more "
        "than the {} bytes allowed",
        limits_.max_names.count());
  return Status::Ok();
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
  CRISP_TRY(Remember(2 * path.size()));
  implied_.insert(path);
  late_[path];
  return Account(1);
}

/// Removes what an earlier entry made at `path`: of two entries with a name the later one holds.
Status Unpacker::Remove(int directory, const Path& path) {
  const std::string full = path.Full();
  whiteouts_.erase(full);
  recount_ = true;
  if (!placeholders_.empty()) {
    struct stat info {};
    if (::fstatat(directory, path.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0)
      placeholders_.erase(info.st_ino);  // the number may soon be another file's
  }
  if (::unlinkat(directory, path.name.c_str(), 0) == 0) return Status::Ok();
  if (errno != EISDIR) return Status::Errno(errno, "replace {}", full);
  CRISP_TRY(os::RemoveTree(fmt::format("/proc/self/fd/{}/{}", directory, path.name)));
  EraseTree(open_, full);
  EraseTree(late_, full);
  EraseTree(implied_, full);
  EraseTree(whiteouts_, full);
  EraseTree(opaques_, full);
  return Status::Ok();
}

Status Unpacker::MarkOpaque(int directory, const std::string& path) {
  if (directory < 0) directory = CRISP_TRY(Directory(path, false));
  if (opaques_.insert(path).second) CRISP_TRY(Remember(path.size()));
  if (::fsetxattr(directory, archive::kOpaqueXattr, "y", 1, 0) != 0)
    return Status::Errno(errno, "{}: set {}", path, archive::kOpaqueXattr);
  return Status::Ok();
}

Status Unpacker::Whiteout(const Path& path) {
  const int parent = CRISP_TRY(Directory(path.directory, true));
  if (path.name == kOpaque) {
    // overlayfs does not look at its layers' own roots: see HideRootOf.
    if (path.directory.empty()) root_opaque_ = true;
    return MarkOpaque(parent, path.directory);
  }
  if (path.name.starts_with(".wh..wh.")) return Status::Ok();  // aufs's own files
  const Path hidden{path.directory, path.name.substr(kWhiteout.size())};
  if (hidden.name.empty() || hidden.name == "." || hidden.name == "..")
    return InvalidArgument("the whiteout {} hides nothing", path.Full());
  if (::mknodat(parent, hidden.name.c_str(), S_IFCHR, ::makedev(0, 0)) == 0) {
    CRISP_TRY(Remember(whiteouts_.insert(hidden.Full()).first->size()));
    return Account(1);
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
  CRISP_TRY(SetDirectory(root_.get(), entry));
  late_[""] = {TimeOf(entry), true, (entry.mode & S_ISGID) != 0 ? entry.mode : 0};
  implied_.erase("");
  return Status::Ok();
}

Status Unpacker::MakeDirectory(const TarEntry& entry, const Path& path) {
  const int parent = CRISP_TRY(Directory(path.directory, true));
  const std::string full = path.Full();
  const mode_t mode = entry.mode & ~kSetGid;
  bool made = ::mkdirat(parent, path.name.c_str(), mode) == 0;
  if (!made) {
    if (errno != EEXIST) return Status::Errno(errno, "make directory {}", full);
    struct stat info {};
    if (::fstatat(parent, path.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
      return Status::Errno(errno, "stat {}", full);
    if (!S_ISDIR(info.st_mode)) {
      const bool hides = whiteouts_.contains(full);
      CRISP_TRY(Remove(parent, path));
      if (::mkdirat(parent, path.name.c_str(), mode) != 0)
        return Status::Errno(errno, "make directory {}", full);
      made = true;
      if (hides) CRISP_TRY(MarkOpaque(-1, full));
    }
  }
  if (made) CRISP_TRY(Account(1));
  implied_.erase(full);
  if (!late_.contains(full)) CRISP_TRY(Remember(full.size()));
  late_[full] = {TimeOf(entry), true, (entry.mode & S_ISGID) != 0 ? entry.mode : 0};
  const bool plain = made && IsOurs(entry) && (entry.mode & 07000U) == 0 && entry.xattrs.empty();
  if (plain) return Status::Ok();
  const int fd = CRISP_TRY(Directory(full, false));
  return SetDirectory(fd, entry);
}

Status Unpacker::Write(archive::TarReader& tar, const TarEntry& entry, int fd) {
  auto extent = entry.extents.begin();
  std::uint64_t left = 0;  // of the extent
  if (entry.sparse) {
    if (::ftruncate(fd, static_cast<off_t>(entry.size)) != 0)
      return Status::Errno(errno, "{}: set the size {}", entry.path, entry.size);
  }
  while (true) {
    std::string_view piece = CRISP_TRY(tar.Data());
    if (piece.empty()) return Status::Ok();
    while (!piece.empty()) {
      std::size_t size = piece.size();
      if (entry.sparse) {
        if (left == 0) {
          if (::lseek(fd, static_cast<off_t>(extent->offset), SEEK_SET) < 0)
            return Status::Errno(errno, "{}: seek", entry.path);
          left = extent->size;
          ++extent;
        }
        size = static_cast<std::size_t>(std::min<std::uint64_t>(size, left));
      }
      const ssize_t count = ::write(fd, piece.data(), size);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return Status::Errno(errno, "write {}", entry.path);
      piece.remove_prefix(static_cast<std::size_t>(count));
      if (entry.sparse) left -= static_cast<std::uint64_t>(count);
    }
  }
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
  CRISP_TRY(Account(1));
  CRISP_TRY(Write(tar, entry, fd.get()));
  CRISP_TRY(SetOwner(fd.get(), entry));
  if (!entry.xattrs.empty()) CRISP_TRY(SetXattrs(fd.get(), entry));
  const auto times = internal::Both(TimeOf(entry));
  if (::futimens(fd.get(), times.data()) != 0)
    return Status::Errno(errno, "{}: set times", entry.path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return Status::Errno(errno, "stat {}", entry.path);
  usage_.bytes += static_cast<std::uint64_t>(info.st_blocks) * kStatBlock;
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
  const bool device = entry.type == EntryType::kCharDevice || entry.type == EntryType::kBlockDevice;
  if (made != 0 && errno == EPERM && device) {
    ++devices_left_out_;  // a confined imaged makes no way to the machine's devices
    return Status::Ok();
  }
  if (made != 0) return Status::Errno(errno, "create {}", entry.path);
  CRISP_TRY(Account(1));
  if (entry.type == EntryType::kSymlink && entry.link.size() >= kLongLink)
    usage_.bytes += kLinkBlock;
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
  if (whiteouts_.contains(target.Full())) return false;
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
  const Path named = CRISP_TRY(Clean(entry.link));
  const Path target = CRISP_TRY(Locate(named));
  if (target.name.empty())
    return InvalidArgument("the hard link {} leads to a directory", entry.path);
  // A link to a link that waits waits for the same.
  if (const Path* deferred = DeferredTarget(target)) return Defer(Path(*deferred), path);
  if (CRISP_TRY(TryLink(target, path))) return Status::Ok();
  if (IsHidden(target))
    return InvalidArgument("the hard link {} leads to the deleted {}", entry.path, target.Full());
  return Defer(target, path);
}

const Unpacker::Path* Unpacker::DeferredTarget(const Path& path) {
  if (placeholders_.empty()) return nullptr;
  struct stat info {};
  const Result<int> parent = Directory(path.directory, false);
  if (!parent.ok() || ::fstatat(*parent, path.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
    return nullptr;
  const auto found = placeholders_.find(info.st_ino);
  return found == placeholders_.end() ? nullptr : &found->second;
}

/// Keeps the name for the link, against entries before and for entries after it.
Status Unpacker::Defer(const Path& target, const Path& path) {
  const int parent = CRISP_TRY(Directory(path.directory, true));
  constexpr mode_t kPlaceholder = S_IFREG | 0600;
  int made = ::mknodat(parent, path.name.c_str(), kPlaceholder, 0);
  if (made != 0 && errno == EEXIST) {
    CRISP_TRY(Remove(parent, path));
    made = ::mknodat(parent, path.name.c_str(), kPlaceholder, 0);
  }
  struct stat info {};
  if (made != 0 || ::fstatat(parent, path.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
    return Status::Errno(errno, "keep {} for a hard link", path.Full());
  CRISP_TRY(Remember(2 * target.Full().size() + path.Full().size()));
  late_links_.push_back({target, path, info.st_ino});
  placeholders_[info.st_ino] = target;
  return Account(1);
}

/// This layer deletes what the layers below have there.
bool Unpacker::IsHidden(const Path& path) const {
  if (root_opaque_ || whiteouts_.contains(path.Full())) return true;
  std::string above = path.directory;
  while (!above.empty()) {
    if (whiteouts_.contains(above) || opaques_.contains(above)) return true;
    const std::size_t slash = above.rfind('/');
    above.resize(slash == std::string::npos ? 0 : slash);
  }
  return false;
}

Status Unpacker::Apply(archive::TarReader& tar, const TarEntry& entry) {
  const Path named = CRISP_TRY(Clean(entry.path));
  const Path path = CRISP_TRY(Locate(named));
  if (path.name.empty()) return RootAttributes(entry);
  CRISP_TRY(AccountSize(entry.size));
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
  if (::unshare(CLONE_FS) != 0) return Status::Errno(errno, "have a umask of our own");
  ::umask(0);
  TarEntry entry;
  while (CRISP_TRY(tar.Next(entry))) CRISP_TRY(Apply(tar, entry));
  return tar.Drain();
}

}  // namespace crisp::imaged
