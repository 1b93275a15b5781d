#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "libs/os/cgroup.h"
#include "services/rund/stats/cgroup_text.h"
#include "services/rund/stats/kept_file.h"

namespace crisp::rund {

/// What a cgroup (and all below it) uses, read at one moment. What the kernel does not tell is
/// absent.
struct CgroupUsage {
  std::optional<std::uint64_t> cpu_ns;  // since it was made, over all cores

  std::optional<std::uint64_t> memory_bytes;
  std::uint64_t inactive_file_bytes = 0;  // can be dropped at once
  std::uint64_t rss_bytes = 0;
  std::uint64_t page_faults = 0;
  std::uint64_t major_page_faults = 0;
  std::optional<std::uint64_t> memory_limit_bytes;  // absent: none
  std::optional<std::uint64_t> swap_bytes;
  std::optional<std::uint64_t> swap_limit_bytes;  // of swap alone; absent: none

  std::optional<Pressure> cpu_pressure;
  std::optional<Pressure> memory_pressure;
  std::optional<Pressure> io_pressure;
  std::optional<std::uint64_t> tasks;  // processes and threads

  // For the metrics, from the same file.
  std::uint64_t cache_bytes = 0;
  std::uint64_t mapped_bytes = 0;
  std::uint64_t active_file_bytes = 0;
  std::uint64_t own_page_faults = 0;  // of this cgroup without those below; v2 does not tell
  std::uint64_t own_major_page_faults = 0;

  /// usage - inactive_file, not below 0.
  std::uint64_t WorkingSet() const;
  /// limit - working set, not below 0; only with a limit.
  std::optional<std::uint64_t> AvailableMemory() const;
};

struct HugetlbUsage {
  std::string page_size;  // "2MB"
  std::uint64_t usage_bytes = 0;
  std::uint64_t max_usage_bytes = 0;
};

/// What only the metrics ask for.
struct CgroupDetails {
  std::uint64_t cpu_user_ns = 0;
  std::uint64_t cpu_system_ns = 0;
  std::uint64_t cfs_periods = 0;
  std::uint64_t cfs_throttled_periods = 0;
  std::uint64_t cfs_throttled_ns = 0;
  std::uint64_t memory_max_usage_bytes = 0;
  std::uint64_t memory_kernel_bytes = 0;
  std::uint64_t memory_limit_hits = 0;
  std::uint64_t oom_kills = 0;
  std::optional<std::uint64_t> tasks_limit;  // absent: none
  std::vector<DeviceIo> io;
  std::vector<HugetlbUsage> hugetlb;
  // What it is limited to; 0 = not.
  std::uint64_t cpu_period_us = 0;
  std::uint64_t cpu_quota_us = 0;
  std::uint64_t cpu_shares = 0;
  std::uint64_t memory_reservation_bytes = 0;
  std::uint64_t memory_swap_limit_bytes = 0;  // memory and swap together
};

/// Reads one cgroup, by its path, on v1, hybrid and v2. The files of CgroupUsage are kept open,
/// those of CgroupDetails are opened for each reading. A cgroup that is not there (any more) reads
/// as nothing. Not thread-safe.
class CgroupReader {
 public:
  CgroupReader(const os::Cgroups& cgroups, const std::string& path, bool keep_open = true);
  /// Descriptors that one reader keeps, at most.
  static constexpr std::size_t kKept = 10;

  /// Nanoseconds; cheaper than the rest.
  std::optional<std::uint64_t> ReadCpu(Scratch& scratch);
  CgroupUsage ReadUsage(Scratch& scratch);
  CgroupDetails ReadDetails(Scratch& scratch) const;
  /// Of the cgroup and those below it.
  std::vector<int> ReadPids(Scratch& scratch) const;

 private:
  void ReadMemory(Scratch& scratch, CgroupUsage& usage);
  void ReadSwap(Scratch& scratch, CgroupUsage& usage);
  void ReadDetailsV1(Scratch& scratch, CgroupDetails& details) const;
  void ReadDetailsV2(Scratch& scratch, CgroupDetails& details) const;
  std::vector<HugetlbUsage> ReadHugetlb(Scratch& scratch) const;

  // Directories; empty without the controller. On v2 they are all the same.
  std::string unified_, cpu_, cpuacct_, memory_, blkio_, pids_, hugetlb_;
  bool v2_ = false;  // the controllers are those of v2; hybrid is not
  KeptFile cpu_usage_, memory_usage_, memory_stat_, memory_limit_;
  KeptFile swap_usage_, swap_limit_, tasks_;
  KeptFile cpu_pressure_, memory_pressure_, io_pressure_;
};

}  // namespace crisp::rund
