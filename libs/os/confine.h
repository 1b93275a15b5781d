#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "libs/base/result.h"

namespace crisp::os {

/// What a process keeps of its privileges; whatever is not named here it gives up for good, and so
/// do the programs that it starts.
struct ConfinePlan {
  /// "CHOWN", "DAC_OVERRIDE" …
  std::vector<std::string> capabilities;
  /// Directories (with all below) and files, for Landlock. A file that is a symbolic link to
  /// another directory opens that directory: such files are replaced by renaming. What is absent is
  /// left out. What is open already stays open.
  std::vector<std::string> read;
  std::vector<std::string> write;    // read, write, make, remove; not execute
  std::vector<std::string> execute;  // read and execute
  std::vector<std::string> sockets;  // list, make and remove sockets; no other file
  /// May start programs. Without it no fork and no exec.
  bool programs = false;
  /// May connect by TCP; listening is allowed on these ports only.
  bool connect_tcp = false;
  std::vector<std::uint16_t> listen_tcp;
};

/// How far the confinement goes on this kernel.
class Confined {
 public:
  /// The version of Landlock's interface; 0: the kernel has none, paths are not limited.
  int landlock_abi() const { return landlock_abi_; }
  /// Paths of the plan that are another file now than when the process was confined (Landlock knows
  /// inodes), or that came to be since: they cannot be read until the process starts anew.
  std::vector<std::string> Outdated() const;
  /// The same where the plan would be `wanted` by now: also what is in no path of the plan then.
  std::vector<std::string> Outdated(const ConfinePlan& wanted) const;

 private:
  friend Result<Confined> Confine(const ConfinePlan& plan);
  struct Seen {
    std::string path;
    std::string real;  // without symbolic links; "" where there was nothing
    dev_t device = 0;
    ino_t inode = 0;
  };
  static Seen Look(const std::string& path);
  bool Holds(const std::string& path) const;

  int landlock_abi_ = 0;
  std::vector<Seen> seen_;
};

/// Confines the calling process: capabilities (permitted, effective, inheritable, ambient and the
/// bounding set), no_new_privs, paths and TCP ports by Landlock where the kernel has it, an
/// allow-list of system calls (no mount, namespace, ptrace, bpf, key, module … calls). A refused
/// system call fails with EPERM, and the kernel's audit log tells of it.
/// kFailedPrecondition: there are other threads already, which Landlock and capabilities would not
/// reach. Any error leaves the process partly confined: the caller gives up.
Result<Confined> Confine(const ConfinePlan& plan);

/// Keeps what this process has in its memory out of core dumps, and from whoever may not trace
/// root's processes: nobody but such gets its environment, memory or descriptors by /proc. For
/// processes that hold secrets; before they read any. Programs that it starts make no core files
/// either.
Status KeepMemoryPrivate();

namespace internal {
/// Landlock's part; the interface version, 0 where the kernel has none.
Result<int> LimitPaths(const ConfinePlan& plan);
/// libseccomp's part.
Status FilterSystemCalls(const ConfinePlan& plan);
}  // namespace internal

}  // namespace crisp::os
