#include "services/imaged/store/layer_file.h"

#include <sys/xattr.h>

#include "libs/archive/tar.h"

namespace crisp::imaged {

Status WriteXattrs(const archive::Xattrs& xattrs, int to, const std::string& path) {
  for (const auto& [name, value] : xattrs) {
    if (!archive::IsHarmlessXattr(name)) continue;
    if (::fsetxattr(to, name.c_str(), value.data(), value.size(), 0) != 0)
      return Status::Errno(errno, "{}: copy {}", path, name);
  }
  return Status::Ok();
}

}  // namespace crisp::imaged
