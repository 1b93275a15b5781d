#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace crisp::ctl::why {

/// Where a thread of a process is, as the kernel tells it.
struct Place {
  pid_t pid = 0;
  pid_t thread = 0;           // the main one's is the process's
  std::string command = {};   // at most 15 characters
  std::string line = {};      // its command line; "" where reading that might hang
  char state = '?';           // R S D T Z …, of proc(5)
  std::string waits_in = {};  // the kernel's function; "" when it runs or that is a secret
  std::vector<std::string> stack = {};  // of the kernel, the innermost first; for root
  std::string file = {};                // that its system call is about
  std::string mount = {};               // "/data (ext4 on /dev/loop0)": where that is

  /// Not even SIGKILL ends it before what it waits for comes.
  bool uninterruptible() const { return state == 'D'; }
  bool stopped() const { return state == 'T' || state == 't'; }
};

/// Of a process and all below it the one that most likely holds the rest up: in uninterruptible
/// sleep, else stopped, else the last one of a chain of children. Nothing: it is gone.
std::optional<Place> PlaceOf(pid_t pid, const std::string& proc_root = "/proc");
/// Of one thread.
std::optional<Place> PlaceOfThread(pid_t pid, pid_t thread, const std::string& proc_root = "/proc");
/// Those in uninterruptible sleep of all that are in the process's cgroups: a container's.
std::vector<Place> SleepersBeside(pid_t pid, const std::string& proc_root = "/proc");

/// "process 12 (cat) is in uninterruptible sleep in fuse_wait_answer, at /data/x on /data (...)".
std::string PlaceText(const Place& place);

}  // namespace crisp::ctl::why
