#pragma once

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

namespace crisp::process {

/// Gives back the process table entries of children whose exit status nobody waits for (any more),
/// a moment after their end and beside the calls that ran them.
///
/// Why not at once: the kernel then throws away what it remembers of /proc/PID, and spins for as
/// long as the threads of the dead program are still letting go of it. For a CNI plugin (Go, a
/// dozen threads) that was 8 ms of system time a pod, 50 ms at worst on a busy node; a moment later
/// it is 0.02 ms. The number of a process stays its own until then.
class Reaper {
 public:
  /// The process's; its thread starts with the first child and lives as long as the process.
  static Reaper& Instance();

  Reaper() = default;
  Reaper(const Reaper&) = delete;
  Reaper& operator=(const Reaper&) = delete;
  /// Reaps what has ended.
  ~Reaper();

  /// `pid`: a child of ours that has ended (waitid said so with WNOWAIT), or that has been killed
  /// and cannot end yet; nobody else reaps it. One that still runs is looked at now and then.
  void Later(pid_t pid);

 private:
  using Clock = std::chrono::steady_clock;

  void Work(const std::stop_token& stop);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::multimap<Clock::time_point, pid_t> due_;  // GUARDED_BY(mutex_)
  std::jthread thread_;  // GUARDED_BY(mutex_) but for the destructor; last: it uses the others
};

}  // namespace crisp::process
