#include "services/imaged/store/usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <vector>

#include "libs/base/try.h"
#include "libs/os/unique_fd.h"

namespace crisp::imaged {
namespace {

constexpr std::uint64_t kStatBlock = 512;

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using Dir = std::unique_ptr<DIR, CloseDir>;

class Walk {
 public:
  explicit Walk(dev_t device) : device_(device) {}

  void Count(const struct stat& info) {
    if (info.st_nlink > 1 && !S_ISDIR(info.st_mode) && !seen_.insert(info.st_ino).second) return;
    usage.bytes += static_cast<std::uint64_t>(info.st_blocks) * kStatBlock;
    ++usage.inodes;
  }
  /// Depth first; the open directories are a stack of our own.
  void Below(os::UniqueFd directory) {
    std::vector<Dir> stack;
    Push(stack, std::move(directory));
    while (!stack.empty()) {
      const dirent* entry = ::readdir(stack.back().get());
      if (entry == nullptr) {
        stack.pop_back();
        continue;
      }
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      const int at = ::dirfd(stack.back().get());
      struct stat info {};
      if (::fstatat(at, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
      if (info.st_dev != device_) continue;
      Count(info);
      if (S_ISDIR(info.st_mode))
        Push(stack, os::UniqueFd(::openat(at, entry->d_name,
                                          O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)));
    }
  }

  Usage usage;

 private:
  static void Push(std::vector<Dir>& stack, os::UniqueFd fd) {
    if (!fd) return;
    Dir dir(::fdopendir(fd.get()));
    if (!dir) return;
    fd.release();
    stack.push_back(std::move(dir));
  }

  const dev_t device_;
  std::set<ino_t> seen_;  // of files with several links
};

}  // namespace

Result<Usage> MeasureTree(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return Status::Errno(errno, "stat {}", path);
  Walk walk(info.st_dev);
  walk.Count(info);
  if (S_ISDIR(info.st_mode)) {
    os::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd) return Status::Errno(errno, "open {}", path);
    walk.Below(std::move(fd));
  }
  return walk.usage;
}

}  // namespace crisp::imaged
