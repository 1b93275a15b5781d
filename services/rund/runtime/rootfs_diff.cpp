#include "services/rund/runtime/rootfs_diff.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "libs/archive/tar.h"
#include "libs/base/try.h"
#include "libs/os/beneath.h"
#include "libs/os/files.h"
#include "libs/os/image_mount.h"

namespace crisp::rund {
namespace {

using archive::EntryType;
using archive::TarEntry;

// Of symbolic links and devices, whose own mode counts for nothing.
constexpr mode_t kModeBits = 07777;

bool IsBelow(const std::set<std::string>& directories, const std::string& path) {
  return std::any_of(directories.begin(), directories.end(), [&path](const std::string& directory) {
    return os::IsAtOrBelow(path, directory);
  });
}

/// Names that the layers below have in a directory ("etc").
Result<std::set<std::string>> NamesBelow(const crisp::imaged::v1::MountInstruction& overlay,
                                         const std::string& path) {
  std::set<std::string> names;
  for (const std::string& layer : overlay.lower_dirs()) {
    os::UniqueFd image;
    if (os::IsImage(layer)) image = CRISP_TRY(os::MountImage(layer));
    const auto root =
        os::Beneath::Open(image ? fmt::format("/proc/self/fd/{}", image.get()) : layer);
    if (!root.ok()) continue;
    const auto dir = root->OpenDir(path);
    if (!dir.ok()) continue;
    for (std::string& name : os::ListDir(dir->ProcPath()).value_or({})) {
      names.insert(std::move(name));
    }
  }
  return names;
}

struct Path {
  std::string directory;  // "" is the root
  std::string name;
};

/// "./a/b/", "/a/b" → {"a", "b"}; the root itself has no name.
Result<Path> Clean(const std::string& text) {
  Path path;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('/', at), text.size());
    const std::string part = text.substr(at, end - at);
    at = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") return InvalidArgument("'{}' leads out of the root file system", text);
    if (!path.name.empty()) {
      path.directory += path.directory.empty() ? path.name : "/" + path.name;
    }
    path.name = part;
  }
  return path;
}

class Applier {
 public:
  Applier(const CallContext& cc, os::Beneath root, Bytes max_size)
      : cc_(cc), root_(std::move(root)), left_(max_size.count()) {}

  Status Take(archive::TarReader& tar) {
    TarEntry entry;
    while (CRISP_TRY(tar.Next(entry))) {
      CRISP_TRY(cc_.Check());
      CRISP_TRY(One(tar, entry).While("{}", entry.path));
    }
    // What is made in a directory changes its time.
    for (auto late = times_.rbegin(); late != times_.rend(); ++late) {
      const auto directory = root_.OpenDir(late->first);
      if (directory.ok()) ::futimens(directory->fd(), late->second.data());
    }
    return Status::Ok();
  }

  Status Delete(const std::string& text) {
    const Path path = CRISP_TRY(Clean(text));
    if (path.name.empty()) return InvalidArgument("'{}' is no name of a file", text);
    const auto parent = root_.OpenDir(path.directory);
    if (parent.code() == Code::kNotFound) return Status::Ok();
    if (!parent.ok()) return parent.status();
    return os::RemoveTree(parent->ProcPath() + "/" + path.name);
  }

 private:
  using Times = std::array<timespec, 2>;

  static Times TimesOf(const TarEntry& entry) {
    const timespec time{.tv_sec = entry.mtime_seconds, .tv_nsec = entry.mtime_nanoseconds};
    return {time, time};
  }

  Status One(archive::TarReader& tar, const TarEntry& entry) {
    const Path path = CRISP_TRY(Clean(entry.path));
    if (path.name.empty()) return Status::Ok();  // the root has its attributes from the image
    const os::Beneath parent = CRISP_TRY(root_.MakeDirs(path.directory));
    if (CRISP_TRY(MakeRoom(parent, path.name, entry.type))) return Directory(parent, path, entry);
    switch (entry.type) {
      case EntryType::kFile: return File(tar, parent, path.name, entry);
      case EntryType::kDirectory:
        if (::mkdirat(parent.fd(), path.name.c_str(), 0700) != 0)
          return Status::FromErrno(errno, "mkdir");
        return Directory(parent, path, entry);
      case EntryType::kHardLink: return Link(parent, path.name, entry);
      case EntryType::kSymlink:
        if (::symlinkat(entry.link.c_str(), parent.fd(), path.name.c_str()) != 0)
          return Status::FromErrno(errno, "symlink");
        return Attributes(parent, path.name, entry);
      case EntryType::kFifo: return Node(parent, path.name, entry, S_IFIFO);
      case EntryType::kCharDevice: return Node(parent, path.name, entry, S_IFCHR);
      case EntryType::kBlockDevice: return Node(parent, path.name, entry, S_IFBLK);
    }
    return Status::Ok();
  }

  /// True: a directory is there that may stay.
  static Result<bool> MakeRoom(const os::Beneath& parent, const std::string& name, EntryType type) {
    struct stat info {};
    if (::fstatat(parent.fd(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) return false;
      return Status::FromErrno(errno, "stat");
    }
    if (S_ISDIR(info.st_mode) && type == EntryType::kDirectory) return true;
    CRISP_TRY(os::RemoveTree(parent.ProcPath() + "/" + name));
    return false;
  }

  Status Directory(const os::Beneath& parent, const Path& path, const TarEntry& entry) {
    const os::UniqueFd fd(
        ::openat(parent.fd(), path.name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid()) return Status::FromErrno(errno, "open");
    times_.emplace_back(path.directory + "/" + path.name, TimesOf(entry));
    return Owner(fd.get(), entry);
  }

  static Status Owner(int fd, const TarEntry& entry) {
    if (::fchown(fd, entry.uid, entry.gid) != 0) return Status::FromErrno(errno, "chown");
    // After chown, which takes setuid and file capabilities away.
    if (::fchmod(fd, entry.mode & kModeBits) != 0) return Status::FromErrno(errno, "chmod");
    for (const auto& [name, value] : entry.xattrs) {
      if (!archive::IsHarmlessXattr(name)) continue;
      if (::fsetxattr(fd, name.c_str(), value.data(), value.size(), 0) != 0 && errno != EOPNOTSUPP)
        return Status::Errno(errno, "set {}", name);
    }
    return Status::Ok();
  }

  Status File(archive::TarReader& tar, const os::Beneath& parent, const std::string& name,
              const TarEntry& entry) {
    if (entry.sparse) return Unimplemented("a sparse file, which nobody writes here");
    if (entry.size > left_) return ResourceExhausted("the files are too large together");
    left_ -= entry.size;
    const os::UniqueFd fd(::openat(parent.fd(), name.c_str(),
                                   O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd.valid()) return Status::FromErrno(errno, "create");
    archive::EntrySource contents(tar);
    CRISP_TRY(archive::WriteTo(cc_, contents, fd.get(), name));
    CRISP_TRY(Owner(fd.get(), entry));
    ::futimens(fd.get(), TimesOf(entry).data());
    return Status::Ok();
  }

  Status Link(const os::Beneath& parent, const std::string& name, const TarEntry& entry) {
    const Path target = CRISP_TRY(Clean(entry.link));
    const os::Beneath from = CRISP_TRY(root_.OpenDir(target.directory));
    if (::linkat(from.fd(), target.name.c_str(), parent.fd(), name.c_str(), 0) != 0)
      return Status::Errno(errno, "link to {}", entry.link);
    return Status::Ok();
  }

  static Status Node(const os::Beneath& parent, const std::string& name, const TarEntry& entry,
                     mode_t kind) {
    const dev_t device = kind == S_IFIFO ? 0 : ::makedev(entry.device_major, entry.device_minor);
    if (kind == S_IFCHR && device == 0) {
      return InvalidArgument("a mark of overlayfs: what is deleted is named in deleted.files");
    }
    if (::mknodat(parent.fd(), name.c_str(), kind | (entry.mode & kModeBits), device) != 0)
      return Status::FromErrno(errno, "mknod");
    return Attributes(parent, name, entry);
  }

  /// Of what is not opened.
  static Status Attributes(const os::Beneath& parent, const std::string& name,
                           const TarEntry& entry) {
    if (::fchownat(parent.fd(), name.c_str(), entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW) != 0)
      return Status::FromErrno(errno, "chown");
    if (entry.type != EntryType::kSymlink &&
        ::fchmodat(parent.fd(), name.c_str(), entry.mode & kModeBits, 0) != 0)
      return Status::FromErrno(errno, "chmod");
    ::utimensat(parent.fd(), name.c_str(), TimesOf(entry).data(), AT_SYMLINK_NOFOLLOW);
    return Status::Ok();
  }

  const CallContext& cc_;
  const os::Beneath root_;
  std::uint64_t left_;                                // of the contents' limit
  std::vector<std::pair<std::string, Times>> times_;  // of directories
};

}  // namespace

Result<std::vector<std::string>> WriteRootfsDiff(const CallContext& cc,
                                                 const crisp::imaged::v1::MountInstruction& overlay,
                                                 const std::set<std::string>& mounted,
                                                 const archive::TarSink& sink) {
  if (overlay.kind() != "overlay" || overlay.upper_dir().empty()) {
    return Unimplemented(
        "the root file system is no overlay: nobody knows what the container has changed in it");
  }
  std::vector<std::string> deleted;
  std::set<std::string> opaque;  // directories
  const auto shape = [&](TarEntry& entry) -> Result<archive::Shaped> {
    if (entry.path == "./") return archive::Shaped{.itself = false};
    const std::string path = "/" + entry.path;
    if (IsBelow(mounted, path)) return archive::Shaped{.wanted = false};
    if (entry.type == EntryType::kCharDevice && entry.device_major == 0 &&
        entry.device_minor == 0) {
      deleted.push_back(path);
      return archive::Shaped{.wanted = false};
    }
    if (entry.type == EntryType::kDirectory &&
        (entry.xattrs.contains(archive::kOpaqueXattr) || IsBelow(opaque, path))) {
      opaque.insert(path);
      std::set<std::string> gone = CRISP_TRY(NamesBelow(overlay, entry.path));
      for (const std::string& name : os::ListDir(overlay.upper_dir() + path).value_or({})) {
        gone.erase(name);
      }
      for (const std::string& name : gone) deleted.push_back(path + "/" + name);
    }
    std::erase_if(entry.xattrs,
                  [](const auto& xattr) { return !archive::IsHarmlessXattr(xattr.first); });
    return archive::Shaped{};
  };
  CRISP_TRY(archive::WriteTree(cc, *archive::ReadDirectory(overlay.upper_dir()), shape, sink));
  return deleted;
}

Status ApplyRootfsDiff(const CallContext& cc, const std::string& rootfs, archive::ChunkSource& tar,
                       const std::vector<std::string>& deleted, Bytes max_size) {
  Applier applier(cc, CRISP_TRY(os::Beneath::Open(rootfs, os::Scope::kInRoot)), max_size);
  archive::TarReader reader(tar);
  CRISP_TRY(applier.Take(reader));
  for (const std::string& path : deleted) {
    CRISP_TRY(cc.Check());
    CRISP_TRY(applier.Delete(path).While("deleted.files"));
  }
  return Status::Ok();
}

}  // namespace crisp::rund
