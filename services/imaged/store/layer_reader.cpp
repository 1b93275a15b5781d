#include "services/imaged/store/layer_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/imaged/store/erofs_reader.h"
#include "services/imaged/store/layer_file.h"

namespace crisp::imaged {
namespace {

/// The tree that the unpacker left.
class TreeReader final : public LayerReader {
 public:
  explicit TreeReader(std::string root) : root_(std::move(root)) {}

  Result<LayerNode> Root() const override {
    LayerNode node;
    node.fd = CRISP_TRY(os::Open(root_, O_PATH | O_DIRECTORY | O_NOFOLLOW));
    if (::fstat(node.fd.get(), &node.info) != 0) return Status::Errno(errno, "stat {}", root_);
    return node;
  }
  Result<std::optional<LayerNode>> Find(const LayerNode& directory,
                                        const std::string& name) const override {
    LayerNode node;
    node.fd =
        os::UniqueFd(::openat(directory.fd.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!node.fd && errno == ENOENT) return std::optional<LayerNode>();
    if (!node.fd || ::fstat(node.fd.get(), &node.info) != 0)
      return Status::Errno(errno, "open {} in {}", name, root_);
    return std::optional<LayerNode>(std::move(node));
  }
  Result<std::vector<std::string>> Names(const LayerNode& directory) const override {
    return os::ListDir(OpenPath(directory));
  }
  Result<Xattrs> ReadXattrs(const LayerNode& node) const override {
    if (!S_ISREG(node.info.st_mode) && !S_ISDIR(node.info.st_mode)) return Xattrs();
    const os::UniqueFd fd = CRISP_TRY(os::Open(OpenPath(node), O_RDONLY | O_NONBLOCK));
    return imaged::ReadXattrs(fd.get(), root_);
  }
  Result<std::string> LinkTarget(const LayerNode& link) const override {
    std::array<char, PATH_MAX> target{};
    const ssize_t size = ::readlinkat(link.fd.get(), "", target.data(), target.size());
    if (size < 0) return Status::Errno(errno, "read a link in {}", root_);
    return std::string(target.data(), static_cast<std::size_t>(size));
  }
  Result<LayerContents> Contents(const LayerNode& file) const override {
    LayerContents contents;
    contents.fd = CRISP_TRY(os::Open(OpenPath(file), O_RDONLY | O_NONBLOCK));
    contents.extents = {{0, static_cast<std::uint64_t>(file.info.st_size)}};
    return contents;
  }

 private:
  static std::string OpenPath(const LayerNode& node) {
    return fmt::format("/proc/self/fd/{}", node.fd.get());
  }

  const std::string root_;
};

}  // namespace

Result<std::unique_ptr<LayerReader>> LayerReader::Open(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return Status::Errno(errno, "open {}", path);
  if (S_ISREG(info.st_mode)) return ErofsReader::Open(path);
  return std::unique_ptr<LayerReader>(std::make_unique<TreeReader>(path));
}

Result<bool> LayerReader::IsOpaque(const LayerNode& directory) const {
  const Xattrs xattrs = CRISP_TRY(ReadXattrs(directory));
  const auto mark = xattrs.find(kOpaqueXattr);
  return mark != xattrs.end() && mark->second == "y";
}

Status LayerReader::CopyXattrs(const LayerNode& node, int to, const std::string& path) const {
  const Xattrs xattrs = CRISP_TRY(ReadXattrs(node));
  return WriteXattrs(xattrs, to, path);
}

Result<std::size_t> LayerContents::Read(std::uint64_t offset, std::span<char> into) const {
  std::size_t done = 0;
  std::uint64_t start = 0;  // of the extent, in the contents
  for (const Extent& extent : extents) {
    const std::uint64_t end = start + extent.size;
    while (done < into.size() && offset + done < end) {
      const std::uint64_t at = offset + done - start;
      const std::size_t size =
          static_cast<std::size_t>(std::min<std::uint64_t>(into.size() - done, extent.size - at));
      const ssize_t count =
          ::pread(fd.get(), into.data() + done, size, static_cast<off_t>(extent.offset + at));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return Status::Errno(errno, "read a layer's file");
      if (count == 0) return DataLoss("a layer's file is shorter than it was");
      done += static_cast<std::size_t>(count);
    }
    start = end;
  }
  return done;
}

Status CopyExtent(const CallContext& cc, int from, const LayerContents::Extent& extent, int to,
                  off_t at, const std::string& path) {
  constexpr off_t kStep = off_t{64} << 20U;
  const auto begin = static_cast<off_t>(extent.offset);
  const auto limit = static_cast<off_t>(extent.offset + extent.size);
  for (off_t end = begin; end < limit;) {
    const off_t data = ::lseek(from, end, SEEK_DATA);
    if (data < 0 || data >= limit) break;
    end = std::min(::lseek(from, data, SEEK_HOLE), limit);
    off_t in = data;
    off_t out = at + (data - begin);
    while (in < end) {
      CRISP_TRY(cc.Check());
      const auto size = static_cast<std::size_t>(std::min(end - in, kStep));
      const ssize_t count = ::copy_file_range(from, &in, to, &out, size, 0);
      if (count < 0) return Status::Errno(errno, "copy {}", path);
      if (count == 0) return DataLoss("copy {}: it became shorter", path);
    }
  }
  return Status::Ok();
}

Status CopyContents(const CallContext& cc, const LayerContents& from, int to,
                    const std::string& path) {
  std::uint64_t size = 0;
  for (const LayerContents::Extent& extent : from.extents) {
    CRISP_TRY(CopyExtent(cc, from.fd.get(), extent, to, static_cast<off_t>(size), path));
    size += extent.size;
  }
  if (::ftruncate(to, static_cast<off_t>(size)) != 0) return Status::Errno(errno, "copy {}", path);
  return Status::Ok();
}

}  // namespace crisp::imaged
