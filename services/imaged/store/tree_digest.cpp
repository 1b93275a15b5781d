#include "services/imaged/store/tree_digest.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>

#include "libs/base/try.h"
#include "libs/digest/digest.h"
#include "libs/os/files.h"
#include "libs/os/unique_fd.h"

namespace crisp::imaged {
namespace {

constexpr std::size_t kBlock = 4096;
constexpr std::size_t kPiece = 64 * kBlock;

using Pace = std::function<Status(std::uint64_t bytes)>;

/// The blocks that are not all zeros, with their places: holes are not read.
class Contents {
 public:
  Contents(int fd, const std::string& path, const Pace& pace)
      : fd_(fd), path_(path), pace_(pace), piece_(kPiece, '\0') {}

  Result<std::string> Digest(off_t size) {
    off_t end = 0;
    while (true) {
      const off_t data = ::lseek(fd_, end, SEEK_DATA);
      if (data < 0 && errno == ENXIO) break;
      if (data < 0) return Status::Errno(errno, "read {}", path_);
      const off_t hole = ::lseek(fd_, data, SEEK_HOLE);
      if (hole < 0) return Status::Errno(errno, "read {}", path_);
      end = CRISP_TRY(Extent(
          std::max(end, data / static_cast<off_t>(kBlock) * static_cast<off_t>(kBlock)), hole));
    }
    sum_.Update(fmt::format("{}", size));
    return sum_.Hex();
  }

 private:
  /// From the beginning of a block to that of another; where it ended.
  Result<off_t> Extent(off_t at, off_t end) {
    while (at < end) {
      std::size_t have = 0;
      while (have < piece_.size()) {
        const ssize_t count =
            ::pread(fd_, piece_.data() + have, piece_.size() - have, at + static_cast<off_t>(have));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return Status::Errno(errno, "read {}", path_);
        if (count == 0) break;
        have += static_cast<std::size_t>(count);
      }
      const std::string_view bytes(piece_.data(), have);
      for (std::size_t i = 0; i < have; i += kBlock) {
        const std::string_view block = bytes.substr(i, kBlock);
        if (block.find_first_not_of('\0') == std::string_view::npos) continue;
        sum_.Update(fmt::format("{} ", at + static_cast<off_t>(i)));
        sum_.Update(block);
      }
      CRISP_TRY(pace_(have));
      at += static_cast<off_t>(piece_.size());
      if (have < piece_.size()) break;
    }
    return at;
  }

  const int fd_;
  const std::string& path_;
  const Pace& pace_;
  std::string piece_;
  digest::Sha256 sum_;
};

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
  explicit Walk(const Pace& pace) : pace_(pace) {}

  Status Take(const std::string& root, const std::string& name) {
    const std::string path = name.empty() ? root : root + "/" + name;
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) return Status::Errno(errno, "stat {}", path);
    std::string line = fmt::format("{:o} {} {} {}.{}", info.st_mode, info.st_uid, info.st_gid,
                                   info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
    if (S_ISREG(info.st_mode)) {
      const os::UniqueFd fd = CRISP_TRY(os::Open(path, O_RDONLY | O_NOFOLLOW | O_NOATIME));
      line += " " + CRISP_TRY(Contents(fd.get(), path, pace_).Digest(info.st_size));
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
    CRISP_TRY(pace_(0));
    if (!S_ISDIR(info.st_mode)) return Status::Ok();
    for (const std::string& child : CRISP_TRY(os::ListDir(path)))
      CRISP_TRY(Take(root, name.empty() ? child : name + "/" + child));
    return Status::Ok();
  }
  std::string Finish() { return sum_.Hex(); }

 private:
  const Pace& pace_;
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
