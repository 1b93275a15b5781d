#pragma once

#include <string>

#include "libs/base/result.h"
#include "libs/os/unique_fd.h"

namespace crisp::os {

/// An exclusive flock(2) on a file, held while the object (and the process) lives. The file stays.
class FileLock {
 public:
  /// Makes the file when absent. kUnavailable when somebody else holds it.
  static Result<FileLock> TryLock(const std::string& path);

 private:
  explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace crisp::os
