#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "libs/os/cgroup.h"
#include "services/rund/core/state.h"
#include "services/rund/stats/cgroup_reader.h"
#include "services/rund/stats/cpu_rate.h"
#include "services/rund/stats/disk_usage.h"
#include "services/rund/stats/network_reader.h"
#include "services/rund/stats/process_usage.h"

namespace crisp::rund {

/// How much a sweep reads; each includes those before it.
enum class Depth {
  kContainers,  // the cgroups of the containers
  kPods,        // and those of the pods, their networks and the number of their processes
  kMetrics,     // and all that only the metrics tell
};

/// One container that has been created and has not ended, as it was at `at`.
struct ContainerSample {
  ContainerRef record;
  std::int64_t at = 0;  // Unix nanoseconds
  CgroupUsage usage;
  std::optional<std::uint64_t> nano_cores;
  std::optional<DiskUsage> disk;
  CgroupDetails details;  // kMetrics, as the next one
  ProcessUsage processes;
};

/// One pod that is ready.
struct PodSample {
  PodRef record;
  std::int64_t at = 0;
  CgroupUsage usage;  // of the pod's cgroup; the sum of its containers where it shares that one
  std::optional<std::uint64_t> nano_cores;
  std::optional<std::vector<InterfaceUsage>> network;  // absent with the host's network
  std::uint64_t process_count = 0;
  std::vector<const ContainerSample*> containers;
  CgroupDetails details;
  ProcessUsage processes;
};

/// The space that all writable layers share.
struct FileSystem {
  std::string mountpoint;  // as ImageFsInfo names it
  std::string device;      // "/dev/vda1"
  std::uint64_t size_bytes = 0;
  std::uint64_t inodes = 0;
  std::uint64_t free_inodes = 0;
};

/// What one sweep over all containers found. Immutable.
struct Sweep {
  Depth depth = Depth::kContainers;
  std::uint64_t seq = 0;  // of the State it saw
  SteadyTime at;
  std::vector<ContainerSample> containers;
  std::vector<PodSample> pods;
  FileSystem file_system;
  std::uint64_t free_swap_bytes = 0;  // of the node
};
using SweepRef = std::shared_ptr<const Sweep>;

struct CollectorOptions {
  /// The directory whose file system holds the writable layers, as ImageFsInfo names it.
  std::string storage_root;
  /// Calls that come within this time after a sweep share it.
  std::chrono::milliseconds share{250};
  /// How long a call waits for a sweep that another one makes.
  std::chrono::seconds patience{2};
  /// Of files that stay open; the rest is opened for each reading.
  std::size_t max_descriptors = 512;
  /// Has somebody call CountDisks() soon: a reading met a layer that was never counted.
  std::function<void()> count_soon = nullptr;
  /// Runs all of the tasks, at the same time if it can, and returns when each has ended; null = one
  /// after the other.
  std::function<void(std::vector<std::function<Status()>>)> side_by_side = nullptr;
};

/// Reads what the containers and pods use: one sweep at a time, for whoever asks, with the files
/// kept open from one to the next. Nothing in it waits for a container, its runtime or its monitor.
/// Any thread.
class Collector {
 public:
  Collector(const State& state, const os::Cgroups& cgroups, Clock& clock, CollectorOptions options);

  /// A sweep of at least that depth which is fresh, and which knows all changes of the State so
  /// far. An older one when another call's sweep takes longer than the patience; kDeadlineExceeded
  /// when there is none, or the call is over.
  Result<SweepRef> Take(const CallContext& cc, Depth depth);
  /// Of a container that may have ended.
  std::optional<DiskUsage> DiskOf(const ContainerRecord& container);

  /// To be called every ten seconds or so: reads the CPU times, from which the rates of the next
  /// calls are made, and brings the disk usages up to date.
  void Tick(const CallContext& cc);
  /// Counts the writable layers that are due; waits for their disk.
  void CountDisks(const CallContext& cc);

 private:
  struct Entry {
    Entry(const os::Cgroups& cgroups, const std::string& path, bool keep)
        : reader(cgroups, path, keep) {}
    CgroupReader reader;
    CpuRate rate;
  };
  struct Running {
    std::vector<ContainerRef> containers;
    std::vector<PodRef> pods;
  };

  bool Begin(const CallContext& cc, std::optional<Depth> depth, SweepRef& fresh);
  void End(SweepRef sweep);
  bool FreshLocked(Depth depth) const;
  Running FindRunning() const;
  void KeepEntries(const Running& running);
  SweepRef DoSweep(Depth depth);
  std::vector<ContainerSample> SampleContainers(const std::vector<ContainerRef>& containers,
                                                Depth depth);
  ContainerSample SampleContainer(const ContainerRef& container, Depth depth, Scratch& scratch);
  PodSample SamplePod(const PodRef& pod, bool shared, Depth depth);
  void SumContainers(PodSample& pod) const;
  void ReadPodNetworks(Sweep& sweep) const;

  const State& state_;
  const os::Cgroups& cgroups_;
  Clock& clock_;
  const CollectorOptions options_;
  DiskUsages disks_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  SweepRef latest_;
  bool sweeping_ = false;

  // Of whoever has set sweeping_.
  Scratch scratch_;
  Scratch second_scratch_;                          // of the second half of the containers
  std::map<std::string, Entry> container_entries_;  // by id
  std::map<std::string, Entry> pod_entries_;
  ProcessReader processes_;
};

}  // namespace crisp::rund
