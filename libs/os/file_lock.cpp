#include "libs/os/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

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

}  // namespace crisp::os
