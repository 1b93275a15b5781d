#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>

#include "libs/os/proc_stat.h"

namespace crisp::rund {

/// Marks what the calling thread spawns while this lives, and all that those start in turn.
///
/// The mark is a timer slack (PR_SET_TIMERSLACK) of its own, some nanoseconds off the default: it
/// is inherited by fork and kept by execve, and no change of session, parent, environment or
/// descriptors takes it off. So it works with any cgroup version and any runtime, and the command
/// sees nothing of it. On the thread that made it.
class TreeMark {
 public:
  TreeMark();
  TreeMark(const TreeMark&) = delete;
  TreeMark& operator=(const TreeMark&) = delete;
  ~TreeMark();

  /// Nothing when the kernel does not do it (a real-time thread).
  std::optional<std::uint64_t> slack_ns() const { return slack_ns_; }

 private:
  long before_ = 0;
  std::optional<std::uint64_t> slack_ns_;
};

/// The processes of one exec in a container.
struct ExecTree {
  pid_t leader = 0;      // the command's first process, or the runtime's when there is none
  os::ProcessId helper;  // the runtime's, or crisp-exec: began its session; 0 = none
  std::optional<std::uint64_t> mark;  // TreeMark::slack_ns when it was started
};

/// SIGKILL to the leader and to all that it started, and waits shortly for their end: its
/// descendants, those in its session, and those that left both (a double fork and setsid), by
/// their mark, as far as they are in the leader's cgroup or below it and are younger than the
/// helper. What can get away: a process that has left its parents and its session, and has set a
/// timer slack of its own as well; and one that has left the leader's cgroup besides.
/// All are stopped first, until nobody new appears: a process that forks faster than we look would
/// get away otherwise.
void KillTree(const ExecTree& tree);

}  // namespace crisp::rund
