#include "services/imaged/store/layer_file.h"

#include <sys/xattr.h>

#include <algorithm>
#include <climits>

#include "libs/base/try.h"

namespace crisp::imaged {

bool IsLayerXattr(std::string_view name) {
  if (name == "security.capability") return true;
  return name.starts_with("user.") && !name.starts_with("user.overlay.");
}

Result<std::map<std::string, std::string>> ReadXattrs(int fd, const std::string& path) {
  std::map<std::string, std::string> found;
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

Status WriteXattrs(const std::map<std::string, std::string>& xattrs, int to,
                   const std::string& path) {
  for (const auto& [name, value] : xattrs) {
    if (!IsLayerXattr(name)) continue;
    if (::fsetxattr(to, name.c_str(), value.data(), value.size(), 0) != 0)
      return Status::Errno(errno, "{}: copy {}", path, name);
  }
  return Status::Ok();
}

}  // namespace crisp::imaged
