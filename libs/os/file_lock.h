#pragma once

#include <cstdint>
#include <string>

#include "libs/base/result.h"
#include "libs/os/unique_fd.h"

namespace crisp::os {

/// A flock(2) on a file, held while the object (and the process) lives, or a child that was given
/// the descriptor. The file stays.
class FileLock {
 public:
  /// Makes the file when absent. kUnavailable when somebody else holds it.
  static Result<FileLock> TryLock(const std::string& path);
  /// The same, together with others that share it; kUnavailable while somebody has it alone.
  static Result<FileLock> TryLockShared(const std::string& path);
  /// Alone one of the 2^62 locks that a file can hold beside each other (fcntl(2), one byte each);
  /// apart from those of the whole file. For objects that come and go: no file of theirs is left.
  static Result<FileLock> TryLockAt(const std::string& path, std::uint64_t which);

  /// For a child that is to keep the lock should we die: it lasts until the last copy is closed.
  int fd() const { return fd_.get(); }
  /// Given back now, also by copies of the descriptor. Not for TryLockAt.
  void Unlock();

 private:
  static Result<FileLock> Try(const std::string& path, int operation);
  explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace crisp::os
