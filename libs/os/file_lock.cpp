#include "libs/os/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <utility>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::os {

Result<FileLock> FileLock::TryLock(const std::string& path) { return Try(path, LOCK_EX); }

Result<FileLock> FileLock::TryLockShared(const std::string& path) { return Try(path, LOCK_SH); }

Result<FileLock> FileLock::Try(const std::string& path, int operation) {
  constexpr mode_t kMode = 0600;
  UniqueFd fd = CRISP_TRY(Open(path, O_RDWR | O_CREAT, kMode));
  if (::flock(fd.get(), operation | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return Unavailable("lock {}: another process holds it", path);
    return Status::Errno(errno, "lock {}", path);
  }
  return FileLock(std::move(fd));
}

void FileLock::Unlock() {
  if (fd_) ::flock(fd_.get(), LOCK_UN);
  fd_.reset();
}

Result<FileLock> FileLock::TryLockAt(const std::string& path, std::uint64_t which) {
  constexpr mode_t kMode = 0600;
  constexpr std::uint64_t kLocks = std::uint64_t{1} << 62U;
  UniqueFd fd = CRISP_TRY(Open(path, O_RDWR | O_CREAT, kMode));
  struct flock range = {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_start = static_cast<off_t>(which % kLocks);
  range.l_len = 1;
  // Of the open file, not of the process: threads exclude each other too.
  if (fcntl(fd.get(), F_OFD_SETLK, &range) != 0) {
    if (errno == EAGAIN || errno == EACCES) {
      return Unavailable("lock {} at {}: somebody else holds it", path, range.l_start);
    }
    return Status::Errno(errno, "lock {}", path);
  }
  return FileLock(std::move(fd));
}

}  // namespace crisp::os
