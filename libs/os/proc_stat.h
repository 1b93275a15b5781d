#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "libs/base/result.h"

namespace crisp::os {

/// What /proc/<pid>/stat says of a process.
struct ProcStat {
  pid_t pid = 0;
  std::string command;  // at most 15 characters, may hold spaces and brackets
  char state = '?';     // R S D Z T …
  pid_t parent = 0;
  std::uint64_t start_time = 0;  // clock ticks since boot: with the pid it names a process
  std::uint64_t cpu_ticks = 0;   // user + system, of itself
};
/// kNotFound when there is no such process.
Result<ProcStat> ReadProcStat(pid_t pid, const std::string& proc_root = "/proc");
/// From the file's text; for tests. kDataLoss when it is not what the kernel writes.
Result<ProcStat> ParseProcStat(const std::string& text);

/// Where a process is that does not do what it should, for people: "process 12 (cat) is in state D
/// in nfs_wait". Reads nothing that waits for the process.
std::string WhereaboutsOf(pid_t pid, const std::string& proc_root = "/proc");

/// Direct children (/proc/<pid>/task/*/children); of a process that is gone: none.
Result<std::vector<pid_t>> Children(pid_t pid, const std::string& proc_root = "/proc");
/// Children, their children, and so on; parents before children.
Result<std::vector<pid_t>> Descendants(pid_t pid, const std::string& proc_root = "/proc");

/// A process and no later one of the same number.
struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start_time = 0;

  /// kNotFound when there is no such process.
  static Result<ProcessId> Of(pid_t pid, const std::string& proc_root = "/proc");
  bool operator==(const ProcessId&) const = default;
};
/// That very process exists and is not a zombie.
bool Alive(const ProcessId& process, const std::string& proc_root = "/proc");

}  // namespace crisp::os
