#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/os/pidfd.h"

namespace crisp::process {

/// What to start. The child gets exactly this: default signal handlers and mask, descriptors 0 to 2
/// and those of `fds`, nothing else that we have open.
struct Command {
  std::string program;                   // a path; PATH is not searched
  std::vector<std::string> args;         // without argv[0], which is the program's path
  std::vector<std::string> env;          // "K=V": the whole environment
  std::string stdin_data;                // empty = /dev/null
  std::optional<std::string> cwd;        // ours when absent
  std::vector<std::pair<int, int>> fds;  // {number in the child (3 or more), our descriptor}
  int out_fd = -1;           // stdout goes there; -1 = captured (Run), /dev/null (Spawn)
  int err_fd = -1;           // the same for stderr
  int in_fd = -1;            // stdin comes from there; -1 = see stdin_data
  bool new_session = false;  // setsid: for those that outlive us
};

struct Output {
  int exit_code = 0;  // 128 + n when it died of signal n
  int signal = 0;     // 0 = it exited by itself
  std::string out;
  std::string err;
  bool truncated = false;  // more than max_output came; the rest was read and thrown away
};

struct RunOptions {
  Bytes max_output = MiB(1);  // of each stream
  /// From SIGTERM (at the deadline or a stop request) to SIGKILL.
  std::chrono::nanoseconds kill_grace = std::chrono::milliseconds(500);
  /// How long output is still read after the program itself has ended while others hold its pipes.
  std::chrono::nanoseconds drain = std::chrono::milliseconds(200);
};

/// Runs to the end; the calling thread blocks. A non-zero exit is not an error. A program that
/// ended by itself is a zombie for a moment more (reaper.h says why). Errors: kNotFound,
/// kPermissionDenied … when it cannot be started; kDeadlineExceeded or kCancelled after SIGTERM,
/// then SIGKILL: the program has been reaped when this returns. The signals go to its process
/// group, so that its own children end too. One that outlives SIGKILL for two seconds
/// (uninterruptible sleep) is left to the Reaper: kDeadlineExceeded says where it hangs.
Result<Output> Run(const CallContext& cc, const Command& command, const RunOptions& options = {});

/// A started program. The destructor neither kills nor waits: one that is still running at that
/// time is left to itself (a zombie of ours when it ends before us, unless Wait or Reap is called).
class Child {
 public:
  Child(Child&&) noexcept = default;
  Child& operator=(Child&&) noexcept = default;

  pid_t pid() const { return pid_; }
  const os::PidFd& pidfd() const { return pidfd_; }
  /// Blocks until it ends; the exit code (128 + n for signal n). kDeadlineExceeded and kCancelled
  /// leave it running. Asked again it answers the same.
  Result<int> Wait(const CallContext& cc);
  /// The same, but one that is still there after `patience` is left to the Reaper: it may hang in
  /// the kernel, and is nobody's to wait for.
  Result<int> WaitOrLeave(std::chrono::nanoseconds patience);
  /// The exit code if it has ended (then it is reaped), without blocking.
  Result<std::optional<int>> Reap();

 private:
  friend Result<Child> Spawn(const Command& command);
  Child(pid_t pid, os::PidFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}

  pid_t pid_;
  os::PidFd pidfd_;
  std::optional<int> exit_code_;
};

/// Starts and returns. stdin_data must fit a pipe (64 KiB).
Result<Child> Spawn(const Command& command);

/// PATH and nothing else: what helpers get when nothing more is said.
std::vector<std::string> PlainEnvironment();

}  // namespace crisp::process
