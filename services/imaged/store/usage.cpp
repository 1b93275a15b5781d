#include "services/imaged/store/usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "libs/base/try.h"
#include "libs/os/btrfs.h"
#include "libs/os/unique_fd.h"

namespace crisp::imaged {
namespace {

constexpr std::uint64_t kStatBlock = 512;
constexpr std::size_t kMaxOpen = 32;  // directories at once
constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using Dir = std::unique_ptr<DIR, CloseDir>;

class Walk {
 public:
  Walk(dev_t device, std::optional<timespec> since) : device_(device), since_(since) {}

  void Count(const struct stat& info) {
    if (!os::ChangedSince(info, since_)) return;
    if (info.st_nlink > 1 && !S_ISDIR(info.st_mode) && !seen_.insert(info.st_ino).second) return;
    usage.bytes += static_cast<std::uint64_t>(info.st_blocks) * kStatBlock;
    ++usage.inodes;
  }
  /// Depth first; the directories on the way are a stack of our own.
  void Below(os::UniqueFd directory) {
    Push(std::move(directory));
    while (!levels_.empty()) {
      DIR* const dir = levels_.back().dir.get();
      const dirent* entry = ::readdir(dir);
      if (entry == nullptr) {
        Leave();
        continue;
      }
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      struct stat info {};
      if (::fstatat(::dirfd(dir), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
      if (info.st_dev != device_) continue;
      Count(info);
      if (S_ISDIR(info.st_mode))
        Push(os::UniqueFd(::openat(::dirfd(dir), entry->d_name, kDirectory)));
    }
  }

  Usage usage;

 private:
  /// Closed while many are open below it, and then gone on with where it was.
  struct Level {
    Dir dir;
    ino_t inode = 0;
    long at = 0;  // of a closed one
  };

  void Push(os::UniqueFd fd) {
    struct stat info {};
    if (!fd || ::fstat(fd.get(), &info) != 0) return;
    Dir dir(::fdopendir(fd.get()));
    if (!dir) return;
    fd.release();
    if (levels_.size() > kMaxOpen) {  // the first stays open
      Level& far = levels_[levels_.size() - kMaxOpen];
      if (far.dir) far.at = ::telldir(far.dir.get());
      far.dir.reset();
    }
    levels_.push_back({std::move(dir), info.st_ino, 0});
  }

  /// Back to the directory above. Where somebody moved this one elsewhere meanwhile the way back is
  /// lost, and we go on at the first.
  void Leave() {
    const Dir done = std::move(levels_.back().dir);
    levels_.pop_back();
    if (levels_.empty() || levels_.back().dir) return;
    Level& above = levels_.back();
    os::UniqueFd fd(::openat(::dirfd(done.get()), "..", kDirectory));
    struct stat info {};
    const bool same =
        fd && ::fstat(fd.get(), &info) == 0 && info.st_dev == device_ && info.st_ino == above.inode;
    above.dir.reset(same ? ::fdopendir(fd.get()) : nullptr);
    if (!above.dir) {
      levels_.erase(levels_.begin() + 1, levels_.end());
      return;
    }
    fd.release();
    ::seekdir(above.dir.get(), above.at);
  }

  const dev_t device_;
  const std::optional<timespec> since_;
  std::set<ino_t> seen_;  // of files with several links
  std::vector<Level> levels_;
};

}  // namespace

Result<Usage> MeasureTree(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return Status::Errno(errno, "stat {}", path);
  os::UniqueFd fd;
  if (S_ISDIR(info.st_mode)) {
    fd = os::UniqueFd(::open(path.c_str(), kDirectory));
    if (!fd) return Status::Errno(errno, "open {}", path);
  }
  Walk walk(info.st_dev, fd ? os::SubvolumeMade(fd.get()) : std::nullopt);
  walk.Count(info);
  if (fd) walk.Below(std::move(fd));
  return walk.usage;
}

}  // namespace crisp::imaged
