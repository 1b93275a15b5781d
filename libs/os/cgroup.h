#pragma once

#include <sys/types.h>

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"

namespace crisp::os {

enum class CgroupMode {
  kV1,      // v1 hierarchies only
  kHybrid,  // v1 hierarchies, and a v2 tree (mostly `unified`) beside them
  kV2,      // one v2 tree
};

/// Cgroups by their path ("/kubepods/burstable/pod1/crisp-abc"), the same in every hierarchy that
/// there is. No memory of its own: the tree is the truth, each call is idempotent. Never mounts or
/// unmounts. Copyable; any thread.
class Cgroups {
 public:
  /// Finds the hierarchies mounted at or below `root`.
  static Result<Cgroups> Detect(const std::string& root = "/sys/fs/cgroup",
                                const std::string& mountinfo = "/proc/self/mountinfo");

  CgroupMode mode() const { return mode_; }
  /// "cpu", "memory", "pids" …; on v2 what the root's cgroup.controllers names, on hybrid both.
  bool HasController(std::string_view name) const;
  const std::set<std::string>& controllers() const { return controllers_; }
  /// The directory of cgroup `path` for v1 controller `name`; on v2 (or for a controller that v2
  /// carries) in that tree. kNotFound without the controller.
  Result<std::string> DirFor(std::string_view controller, const std::string& path) const;
  /// The same of the root, which is to be read alone.
  Result<std::string> RootFor(std::string_view controller) const;
  /// The directory in the v2 tree (v2 and hybrid); kNotFound on pure v1.
  Result<std::string> UnifiedDir(const std::string& path) const;

  /// Makes the cgroup and its parents in every hierarchy; cpuset inherits from the parent on v1; on
  /// v2 every controller there is gets enabled for children along the way (the last one's own
  /// subtree_control is left alone). Existing = Ok. kInvalidArgument for "..", relative paths, "/".
  Status Create(const std::string& path) const;
  /// Removes the cgroup and all below it, in every hierarchy. Absent = Ok. Waits up to a quarter of
  /// a second for dying processes; kFailedPrecondition when some are still in it then.
  Status Remove(const std::string& path) const;
  /// Moves a process into the cgroup in every hierarchy.
  Status Add(const std::string& path, pid_t pid) const;
  /// On v1 the first move of any process after a quiet time waits for the kernel (an RCU grace
  /// period: 13 to 16 ms). This is such a move, of the caller to where it is: those of the next 40
  /// ms or so do not wait. Blocks for as long; nothing on v2. Failure does no harm.
  void WarmUp() const;
  /// Processes in the cgroup, in any hierarchy (each pid once, sorted). Absent = none.
  Result<std::vector<pid_t>> Pids(const std::string& path, bool recursive = true) const;
  /// SIGKILL to all in it and below: cgroup.kill where there is one, else (or beside it) the
  /// freezer and a loop until nobody is left or all of them have been signalled several times.
  /// Absent = Ok. The processes may still be dying when this returns.
  Status Kill(const std::string& path) const;
  /// There in at least one hierarchy.
  Result<bool> Exists(const std::string& path) const;

  /// How many of its processes (and of those below, on v2) the kernel killed for want of memory,
  /// be it the cgroup's own, a parent's or the machine's. 0 without a memory controller or without
  /// the cgroup.
  Result<std::uint64_t> OomKills(const std::string& path) const;
  /// Memory of the cgroup that cannot just be dropped: what is used less the page cache of files.
  /// kNotFound without a memory controller or without the cgroup.
  Result<std::uint64_t> MemoryInUse(const std::string& path) const;
  /// Holds all of its processes, and those below, until Thaw; returns when they stand still. Frozen
  /// already is Ok. kDeadlineExceeded: some of them do not within five seconds (it is thawed again
  /// then); kUnimplemented without a freezer; kNotFound without the cgroup.
  Status Freeze(const std::string& path) const;
  /// Lets a frozen cgroup run (nothing dies while it is frozen). Not frozen, or absent, is Ok.
  Status Thaw(const std::string& path) const;

 private:
  struct Hierarchy {
    std::string mount_point;
    std::set<std::string> controllers;  // v1: "cpu" or "name=systemd"
    bool v2 = false;
  };
  Status CreateIn(const Hierarchy& hierarchy, const std::string& path) const;
  Status RemoveIn(const Hierarchy& hierarchy, const std::string& path) const;

  CgroupMode mode_ = CgroupMode::kV2;
  std::vector<Hierarchy> hierarchies_;
  std::set<std::string> controllers_;
};

/// The cgroup of a process in the hierarchy of a v1 controller, or (empty name) in v2, from
/// /proc/<pid>/cgroup.
Result<std::string> CgroupOf(pid_t pid, std::string_view controller,
                             const std::string& proc_root = "/proc");

}  // namespace crisp::os
