#pragma once

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace crisp::process {

/// Gives back the process table entries of children whose exit status is known already, a moment
/// after their end and beside the calls that ran them.
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
  /// Reaps what is left.
  ~Reaper();

  /// `pid`: a child of ours that has ended (waitid said so with WNOWAIT) and that nobody else
  /// reaps.
  void Later(pid_t pid);

 private:
  using Clock = std::chrono::steady_clock;
  struct Ended {
    pid_t pid = 0;
    Clock::time_point due;
  };

  void Work(const std::stop_token& stop);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Ended> ended_;  // GUARDED_BY(mutex_), the oldest first
  std::jthread thread_;      // GUARDED_BY(mutex_) but for the destructor; last: it uses the others
};

}  // namespace crisp::process
