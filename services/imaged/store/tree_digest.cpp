#include "services/imaged/store/tree_digest.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <map>

#include "libs/base/try.h"
#include "libs/digest/digest.h"
#include "libs/os/files.h"
#include "libs/os/unique_fd.h"

namespace crisp::imaged {
namespace {

constexpr std::size_t kPiece = std::size_t{256} << 10U;

Result<std::string> ContentsOf(int fd, const std::string& path) {
  digest::Sha256 sum;
  std::string piece(kPiece, '\0');
  while (true) {
    const ssize_t count = ::read(fd, piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Status::Errno(errno, "read {}", path);
    if (count == 0) return sum.Hex();
    sum.Update(std::string_view(piece.data(), static_cast<std::size_t>(count)));
  }
}

/// Name and value of each, by name; none for what cannot have any.
Result<std::string> XattrsOf(const std::string& path) {
  std::string names(XATTR_LIST_MAX, '\0');
  const ssize_t size = ::llistxattr(path.c_str(), names.data(), names.size());
  if (size < 0 && errno == EOPNOTSUPP) return std::string();
  if (size < 0) return Status::Errno(errno, "{}: list extended attributes", path);
  std::map<std::string, std::string> values;
  std::string value(XATTR_SIZE_MAX, '\0');
  for (std::size_t at = 0; at < static_cast<std::size_t>(size);) {
    const std::string name = names.c_str() + at;
    at += name.size() + 1;
    if (!name.starts_with("user.") && name != "security.capability") continue;
    const ssize_t length = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    if (length < 0) return Status::Errno(errno, "{}: read {}", path, name);
    values[name] = value.substr(0, static_cast<std::size_t>(length));
  }
  std::string text;
  for (const auto& [name, each] : values)
    text += fmt::format(" {}={}", name, digest::Sha256Hex(each));
  return text;
}

class Walk {
 public:
  explicit Walk(const std::function<Status(std::uint64_t)>& pace) : pace_(pace) {}

  Status Take(const std::string& root, const std::string& name) {
    const std::string path = name.empty() ? root : root + "/" + name;
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) return Status::Errno(errno, "stat {}", path);
    std::string line = fmt::format("{:o} {} {} {}.{}", info.st_mode, info.st_uid, info.st_gid,
                                   info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
    std::uint64_t bytes = 0;
    if (S_ISREG(info.st_mode)) {
      const os::UniqueFd fd = CRISP_TRY(os::Open(path, O_RDONLY | O_NOFOLLOW | O_NOATIME));
      line += " " + CRISP_TRY(ContentsOf(fd.get(), path));
      bytes = static_cast<std::uint64_t>(info.st_size);
    } else if (S_ISLNK(info.st_mode)) {
      line += " " + CRISP_TRY(os::ReadLink(path));
    } else if (!S_ISDIR(info.st_mode)) {
      line += fmt::format(" {}", info.st_rdev);
    }
    line += CRISP_TRY(XattrsOf(path));
    sum_.Update(name);
    sum_.Update(std::string_view("\0", 1));
    sum_.Update(line);
    sum_.Update(std::string_view("\0", 1));
    CRISP_TRY(pace_(bytes));
    if (!S_ISDIR(info.st_mode)) return Status::Ok();
    for (const std::string& child : CRISP_TRY(os::ListDir(path)))
      CRISP_TRY(Take(root, name.empty() ? child : name + "/" + child));
    return Status::Ok();
  }
  std::string Finish() { return sum_.Hex(); }

 private:
  const std::function<Status(std::uint64_t)>& pace_;
  digest::Sha256 sum_;
};

}  // namespace

Result<std::string> TreeDigest(const std::string& path,
                               const std::function<Status(std::uint64_t bytes)>& pace) {
  Walk walk(pace);
  CRISP_TRY(walk.Take(path, ""));
  return walk.Finish();
}

}  // namespace crisp::imaged
