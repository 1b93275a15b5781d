#include "libs/archive/tree_reader.h"

#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <utility>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::archive {
namespace {

class DirectoryReader final : public TreeReader {
 public:
  explicit DirectoryReader(std::string root) : root_(std::move(root)) {}

  Result<TreeNode> Root() const override {
    TreeNode node;
    node.fd = CRISP_TRY(os::Open(root_, O_PATH | O_DIRECTORY | O_NOFOLLOW));
    if (::fstat(node.fd.get(), &node.info) != 0) return Status::Errno(errno, "stat {}", root_);
    return node;
  }
  Result<std::optional<TreeNode>> Find(const TreeNode& directory,
                                       const std::string& name) const override {
    TreeNode node;
    node.fd =
        os::UniqueFd(::openat(directory.fd.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!node.fd && errno == ENOENT) return std::optional<TreeNode>();
    if (!node.fd || ::fstat(node.fd.get(), &node.info) != 0)
      return Status::Errno(errno, "open {} in {}", name, root_);
    return std::optional<TreeNode>(std::move(node));
  }
  Result<std::vector<std::string>> Names(const TreeNode& directory) const override {
    return os::ListDir(OpenPath(directory));
  }
  Result<Xattrs> ReadXattrs(const TreeNode& node) const override {
    if (!S_ISREG(node.info.st_mode) && !S_ISDIR(node.info.st_mode)) return Xattrs();
    const os::UniqueFd fd = CRISP_TRY(os::Open(OpenPath(node), O_RDONLY | O_NONBLOCK));
    return archive::ReadXattrs(fd.get(), root_);
  }
  Result<std::string> LinkTarget(const TreeNode& link) const override {
    std::array<char, PATH_MAX> target{};
    const ssize_t size = ::readlinkat(link.fd.get(), "", target.data(), target.size());
    if (size < 0) return Status::Errno(errno, "read a link in {}", root_);
    return std::string(target.data(), static_cast<std::size_t>(size));
  }
  Result<TreeContents> Contents(const TreeNode& file) const override {
    TreeContents contents;
    contents.fd = CRISP_TRY(os::Open(OpenPath(file), O_RDONLY | O_NONBLOCK));
    contents.extents = {{0, static_cast<std::uint64_t>(file.info.st_size)}};
    return contents;
  }

 private:
  static std::string OpenPath(const TreeNode& node) {
    return fmt::format("/proc/self/fd/{}", node.fd.get());
  }

  const std::string root_;
};

}  // namespace

std::unique_ptr<TreeReader> ReadDirectory(std::string path) {
  return std::make_unique<DirectoryReader>(std::move(path));
}

Result<Xattrs> ReadXattrs(int fd, const std::string& path) {
  Xattrs found;
  const ssize_t size = ::flistxattr(fd, nullptr, 0);
  if (size == 0 || (size < 0 && errno == EOPNOTSUPP)) return found;
  std::string names(static_cast<std::size_t>(std::max<ssize_t>(size, 0)), '\0');
  const ssize_t got = size < 0 ? size : ::flistxattr(fd, names.data(), names.size());
  if (got < 0) return Status::Errno(errno, "{}: list extended attributes", path);
  std::string value(XATTR_SIZE_MAX, '\0');
  for (std::size_t at = 0; at < static_cast<std::size_t>(got);) {
    const std::string name = names.c_str() + at;
    at += name.size() + 1;
    const ssize_t length = ::fgetxattr(fd, name.c_str(), value.data(), value.size());
    if (length < 0) return Status::Errno(errno, "{}: read {}", path, name);
    found[name] = value.substr(0, static_cast<std::size_t>(length));
  }
  return found;
}

Result<std::size_t> TreeContents::Read(std::uint64_t offset, std::span<char> into) const {
  std::size_t done = 0;
  std::uint64_t start = 0;  // of the extent, in the contents
  for (const Extent& extent : extents) {
    const std::uint64_t end = start + extent.size;
    if (done < into.size() && offset + done < end) {
      const std::uint64_t at = offset + done - start;
      const auto size =
          static_cast<std::size_t>(std::min<std::uint64_t>(into.size() - done, extent.size - at));
      CRISP_TRY(os::ReadAt(fd.get(), extent.offset + at, into.subspan(done, size), "the file"));
      done += size;
    }
    start = end;
  }
  return done;
}

}  // namespace crisp::archive
