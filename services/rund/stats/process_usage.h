#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "services/rund/stats/kept_file.h"

namespace crisp::rund {

/// How many processes are in which state, by their first threads. Zombies are in none.
struct ProcessStates {
  std::uint64_t running = 0;
  std::uint64_t sleeping = 0;
  std::uint64_t uninterruptible = 0;
  std::uint64_t stopped = 0;  // by a signal or a debugger

  /// The letter that /proc/<pid>/status has.
  void Count(char state);
};

/// What the processes of a container hold; only the metrics ask for it.
struct ProcessUsage {
  std::uint64_t count = 0;
  std::uint64_t threads = 0;
  std::uint64_t file_descriptors = 0;
  std::uint64_t sockets = 0;
  ProcessStates states;
  std::uint64_t max_open_files = 0;  // soft limit of the first process; 0 = unlimited or unknown

  void Add(const ProcessUsage& other);
};

/// From /proc. A process with very many descriptors costs no more than `kMaxDescriptors` looks at
/// what they are: the sockets beyond that are not counted. Not thread-safe.
class ProcessReader {
 public:
  explicit ProcessReader(std::string proc_root = "/proc") : proc_root_(std::move(proc_root)) {}

  /// Of these processes; those that end meanwhile are passed over.
  ProcessUsage Read(const std::vector<int>& pids, Scratch& scratch) const;

 private:
  void AddDescriptors(int pid, ProcessUsage& usage) const;

  const std::string proc_root_;
};

}  // namespace crisp::rund
