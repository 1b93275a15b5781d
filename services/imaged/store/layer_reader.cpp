#include "services/imaged/store/layer_reader.h"

#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>

#include "libs/archive/tar.h"
#include "libs/base/try.h"
#include "services/imaged/store/erofs_reader.h"

namespace crisp::imaged {

Result<std::unique_ptr<archive::TreeReader>> OpenLayer(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return Status::Errno(errno, "open {}", path);
  if (S_ISREG(info.st_mode)) return ErofsReader::Open(path);
  return archive::ReadDirectory(path);
}

bool IsWhiteout(const archive::TreeNode& node) {
  return S_ISCHR(node.info.st_mode) && node.info.st_rdev == 0;
}

Result<bool> IsOpaque(const archive::TreeReader& layer, const archive::TreeNode& directory) {
  const archive::Xattrs xattrs = CRISP_TRY(layer.ReadXattrs(directory));
  const auto mark = xattrs.find(archive::kOpaqueXattr);
  return mark != xattrs.end() && mark->second == "y";
}

Status WriteXattrs(const archive::Xattrs& xattrs, int to, const std::string& path) {
  for (const auto& [name, value] : xattrs) {
    if (!archive::IsHarmlessXattr(name)) continue;
    if (::fsetxattr(to, name.c_str(), value.data(), value.size(), 0) != 0)
      return Status::Errno(errno, "{}: copy {}", path, name);
  }
  return Status::Ok();
}

Status CopyXattrs(const archive::TreeReader& layer, const archive::TreeNode& node, int to,
                  const std::string& path) {
  const archive::Xattrs xattrs = CRISP_TRY(layer.ReadXattrs(node));
  return WriteXattrs(xattrs, to, path);
}

Status CopyExtent(const CallContext& cc, int from, const archive::TreeContents::Extent& extent,
                  int to, off_t at, const std::string& path) {
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

Status CopyContents(const CallContext& cc, const archive::TreeContents& from, int to,
                    const std::string& path) {
  std::uint64_t size = 0;
  for (const archive::TreeContents::Extent& extent : from.extents) {
    CRISP_TRY(CopyExtent(cc, from.fd.get(), extent, to, static_cast<off_t>(size), path));
    size += extent.size;
  }
  if (::ftruncate(to, static_cast<off_t>(size)) != 0) return Status::Errno(errno, "copy {}", path);
  return Status::Ok();
}

}  // namespace crisp::imaged
