#include "services/imaged/store/flatten.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <map>
#include <memory>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/os/unique_fd.h"
#include "services/imaged/store/layer_reader.h"

namespace crisp::imaged {
namespace {

constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

/// One layer over what is in the target by now.
class Layer {
 public:
  Layer(const CallContext& cc, const archive::TreeReader& layer, int target_root)
      : cc_(cc), layer_(layer), target_root_(target_root) {}

  Status Merge(const archive::TreeNode& from, int to, const std::string& path) {
    CRISP_TRY(cc_.Check());
    const bool opaque = CRISP_TRY(IsOpaque(layer_, from));
    if (opaque) CRISP_TRY(Clear(to, path));
    for (const std::string& name : CRISP_TRY(layer_.Names(from))) {
      const auto child = CRISP_TRY(layer_.Find(from, name));
      if (child) CRISP_TRY(One(*child, to, name, path.empty() ? name : path + "/" + name));
    }
    CRISP_TRY(CopyXattrs(layer_, from, to, path));
    const struct stat& info = from.info;
    const std::array<timespec, 2> times = {info.st_atim, info.st_mtim};
    if (::fchown(to, info.st_uid, info.st_gid) != 0 || ::fchmod(to, info.st_mode & 07777U) != 0 ||
        ::futimens(to, times.data()) != 0)
      return Status::Errno(errno, "attributes of {}", path);
    return Status::Ok();
  }

 private:
  static Status Remove(int directory, const std::string& name, const std::string& path) {
    if (::unlinkat(directory, name.c_str(), 0) == 0 || errno == ENOENT) return Status::Ok();
    if (errno != EISDIR) return Status::Errno(errno, "replace {}", path);
    return os::RemoveTree(fmt::format("/proc/self/fd/{}/{}", directory, name));
  }
  static Status Clear(int directory, const std::string& path) {
    for (const std::string& name :
         CRISP_TRY(os::ListDir(fmt::format("/proc/self/fd/{}", directory))))
      CRISP_TRY(Remove(directory, name, path + "/" + name));
    return Status::Ok();
  }

  Status One(const archive::TreeNode& from, int to, const std::string& name,
             const std::string& path) {
    if (IsWhiteout(from)) return Remove(to, name, path);
    const struct stat& info = from.info;
    if (S_ISDIR(info.st_mode)) return Directory(from, to, name, path);
    CRISP_TRY(Remove(to, name, path));
    const bool linked = info.st_nlink > 1;
    if (linked) {
      const auto first = links_.find(info.st_ino);
      if (first != links_.end()) {
        if (::linkat(target_root_, first->second.c_str(), to, name.c_str(), 0) != 0)
          return Status::Errno(errno, "link {}", path);
        return Status::Ok();
      }
      links_[info.st_ino] = path;
    }
    if (S_ISREG(info.st_mode)) return File(from, to, name, path);
    return Special(from, to, name, path);
  }

  Status Directory(const archive::TreeNode& from, int to, const std::string& name,
                   const std::string& path) {
    struct stat there {};
    const bool exists = ::fstatat(to, name.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0;
    if (exists && !S_ISDIR(there.st_mode)) CRISP_TRY(Remove(to, name, path));
    constexpr mode_t kWhileMade = 0700;
    if (::mkdirat(to, name.c_str(), kWhileMade) != 0 && errno != EEXIST)
      return Status::Errno(errno, "make directory {}", path);
    const os::UniqueFd target(::openat(to, name.c_str(), kDirectory));
    if (!target) return Status::Errno(errno, "open {}", path);
    return Merge(from, target.get(), path);
  }

  Status File(const archive::TreeNode& from, int to, const std::string& name,
              const std::string& path) const {
    constexpr mode_t kWhileMade = 0600;
    const archive::TreeContents source = CRISP_TRY(layer_.Contents(from));
    const os::UniqueFd target(::openat(
        to, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, kWhileMade));
    if (!target) return Status::Errno(errno, "copy {}", path);
    CRISP_TRY(CopyContents(cc_, source, target.get(), path));
    const struct stat& info = from.info;
    const std::array<timespec, 2> times = {info.st_atim, info.st_mtim};
    if (::fchown(target.get(), info.st_uid, info.st_gid) != 0 ||
        ::fchmod(target.get(), info.st_mode & 07777U) != 0)
      return Status::Errno(errno, "attributes of {}", path);
    CRISP_TRY(CopyXattrs(layer_, from, target.get(), path));
    if (::futimens(target.get(), times.data()) != 0)
      return Status::Errno(errno, "times of {}", path);
    return Status::Ok();
  }

  Status Special(const archive::TreeNode& from, int to, const std::string& name,
                 const std::string& path) const {
    const struct stat& info = from.info;
    if (S_ISLNK(info.st_mode)) {
      const std::string target = CRISP_TRY(layer_.LinkTarget(from));
      if (::symlinkat(target.c_str(), to, name.c_str()) != 0)
        return Status::Errno(errno, "link {}", path);
    } else if (::mknodat(to, name.c_str(), info.st_mode, info.st_rdev) != 0) {
      return errno == EPERM ? Status::Ok() : Status::Errno(errno, "make {}", path);
    }
    const std::array<timespec, 2> times = {info.st_atim, info.st_mtim};
    if (::fchownat(to, name.c_str(), info.st_uid, info.st_gid, AT_SYMLINK_NOFOLLOW) != 0 ||
        (!S_ISLNK(info.st_mode) && ::fchmodat(to, name.c_str(), info.st_mode & 07777U, 0) != 0) ||
        ::utimensat(to, name.c_str(), times.data(), AT_SYMLINK_NOFOLLOW) != 0)
      return Status::Errno(errno, "attributes of {}", path);
    return Status::Ok();
  }

  const CallContext& cc_;
  const archive::TreeReader& layer_;
  const int target_root_;
  std::map<ino_t, std::string> links_;  // of this layer: the first path of each file
};

}  // namespace

Status Flatten(const CallContext& cc, const std::vector<std::string>& layers,
               const std::string& target) {
  const os::UniqueFd to(::open(target.c_str(), kDirectory));
  if (!to) return Status::Errno(errno, "open {}", target);
  for (auto path = layers.rbegin(); path != layers.rend(); ++path) {
    const std::unique_ptr<archive::TreeReader> layer = CRISP_TRY(OpenLayer(*path));
    const archive::TreeNode root = CRISP_TRY(layer->Root());
    CRISP_TRY(Layer(cc, *layer, to.get()).Merge(root, to.get(), "").While("copy {}", *path));
  }
  return Status::Ok();
}

}  // namespace crisp::imaged
