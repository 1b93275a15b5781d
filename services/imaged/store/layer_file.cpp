#include "services/imaged/store/layer_file.h"

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

#include "libs/archive/tar.h"
#include "libs/base/try.h"

namespace crisp::imaged {

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
    if (!archive::IsHarmlessXattr(name)) continue;
    const ssize_t length = ::fgetxattr(from, name.c_str(), value.data(), value.size());
    if (length < 0 ||
        ::fsetxattr(to, name.c_str(), value.data(), static_cast<std::size_t>(length), 0) != 0)
      return Status::Errno(errno, "{}: copy {}", path, name);
  }
  return Status::Ok();
}

Status CopyContents(const CallContext& cc, int from, int to, const std::string& path) {
  constexpr off_t kStep = off_t{64} << 20U;
  struct stat info {};
  if (::fstat(from, &info) != 0) return Status::Errno(errno, "stat {}", path);
  for (off_t end = 0;;) {
    const off_t data = ::lseek(from, end, SEEK_DATA);
    if (data < 0) break;
    end = ::lseek(from, data, SEEK_HOLE);
    off_t in = data;
    off_t out = data;
    while (in < end) {
      CRISP_TRY(cc.Check());
      const auto size = static_cast<std::size_t>(std::min(end - in, kStep));
      const ssize_t count = ::copy_file_range(from, &in, to, &out, size, 0);
      if (count < 0) return Status::Errno(errno, "copy {}", path);
      if (count == 0) return DataLoss("copy {}: it became shorter", path);
    }
  }
  if (::ftruncate(to, info.st_size) != 0) return Status::Errno(errno, "copy {}", path);
  return Status::Ok();
}

}  // namespace crisp::imaged
