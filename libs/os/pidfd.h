#pragma once

#include <sys/types.h>

#include "libs/base/result.h"
#include "libs/os/proc_stat.h"
#include "libs/os/unique_fd.h"

namespace crisp::os {

/// A process by descriptor: signals never hit a later process of the same number. Readable (poll)
/// once the process has ended, also when it is not our child.
class PidFd {
 public:
  PidFd() = default;
  /// kNotFound when there is no such process.
  static Result<PidFd> Open(pid_t pid);
  /// As recorded earlier: kNotFound when that process is gone, also when its number lives on in
  /// another one.
  static Result<PidFd> Open(const ProcessId& process);

  /// kNotFound when it has ended (and been reaped).
  Status Signal(int signal) const;
  /// Ended, reaped or not.
  Result<bool> Exited() const;

  int fd() const { return fd_.get(); }
  bool valid() const { return fd_.valid(); }

 private:
  explicit PidFd(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace crisp::os
