#include "services/rund/stats/collector.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <utility>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "services/rund/core/status.h"
#include "services/rund/stats/device_names.h"

namespace crisp::rund {
namespace {

// A container this young had used nothing a moment ago: its first reading makes a rate already.
constexpr std::int64_t kYoung = 10'000'000'000;
// Of a tick, for counting files: at most a hundredth of a core.
constexpr std::chrono::milliseconds kDiskBudget{100};
// Containers whose reading takes several times what it takes to wake another thread.
constexpr std::size_t kWorthAThread = 8;

std::string UpperDirOf(const ContainerRecord& container) {
  for (const auto& mount : container.rootfs_mounts()) {
    if (!mount.upper_dir().empty()) return mount.upper_dir();
  }
  return {};
}

void AddTo(std::optional<std::uint64_t>& sum, const std::optional<std::uint64_t>& more) {
  if (more) sum = sum.value_or(0) + *more;
}

FileSystem FileSystemAt(const std::string& path) {
  FileSystem found{.mountpoint = path};
  struct stat info = {};
  struct statvfs space = {};
  if (::stat(path.c_str(), &info) == 0) {
    found.device = DeviceName(fmt::format("{}:{}", major(info.st_dev), minor(info.st_dev)));
  }
  if (::statvfs(path.c_str(), &space) == 0) {
    found.size_bytes = static_cast<std::uint64_t>(space.f_blocks) * space.f_frsize;
    found.inodes = space.f_files;
    found.free_inodes = space.f_ffree;
  }
  return found;
}

std::uint64_t FreeSwap(Scratch& scratch) {
  std::uint64_t free = 0;
  // Cheaper than /proc/meminfo. "Filename Type Size Used Priority", in KiB, after a heading.
  ForEachLine(ReadOnce("/proc/swaps", scratch), [&free](std::string_view line) {
    NextWord(line);
    NextWord(line);
    const auto size = ParseNumber(NextWord(line));
    const auto used = ParseNumber(NextWord(line));
    if (size && used && *size > *used) free += (*size - *used) << 10U;
  });
  return free;
}

}  // namespace

Collector::Collector(const State& state, const os::Cgroups& cgroups, Clock& clock,
                     CollectorOptions options)
    : state_(state),
      cgroups_(cgroups),
      clock_(clock),
      options_(std::move(options)),
      disks_(clock) {}

bool Collector::FreshLocked(Depth depth) const {
  return latest_ != nullptr && latest_->depth >= depth && latest_->seq == state_.seq() &&
         clock_.Now() - latest_->at < options_.share;
}

/// True: the caller is the one that sweeps now, and has to call End. False: `fresh` is set, or
/// (for a call without a depth, which does not wait) somebody else sweeps, or the time is over.
bool Collector::Begin(const CallContext& cc, std::optional<Depth> depth, SweepRef& fresh) {
  std::unique_lock lock(mutex_);
  const auto ready = [&] { return (depth && FreshLocked(*depth)) || !sweeping_; };
  if (depth) {
    const SteadyTime deadline =
        clock_.Now() + std::min<std::chrono::nanoseconds>(options_.patience, cc.Remaining());
    if (!clock_.WaitUntil(lock, changed_, deadline, ready)) return false;
    if (FreshLocked(*depth)) {
      fresh = latest_;
      return false;
    }
  }
  return !std::exchange(sweeping_, true);
}

void Collector::End(SweepRef sweep) {
  {
    const std::lock_guard lock(mutex_);
    sweeping_ = false;
    if (sweep != nullptr) latest_ = std::move(sweep);
  }
  changed_.notify_all();
}

Result<SweepRef> Collector::Take(const CallContext& cc, Depth depth) {
  SweepRef sweep;
  if (Begin(cc, depth, sweep)) {
    Cleanup unlock([this] { End(nullptr); });
    sweep = DoSweep(depth);
    unlock.Dismiss();
    End(sweep);
    if (options_.count_soon && disks_.WantsUpdate()) options_.count_soon();
  }
  if (sweep != nullptr) return sweep;
  CRISP_TRY(cc.Check());
  // Whatever holds the other call up (a disk that does not answer): what there is has its age.
  const std::lock_guard lock(mutex_);
  if (latest_ != nullptr && latest_->depth >= depth) return latest_;
  return DeadlineExceeded("statistics: another call's reading has not ended in time");
}

void Collector::Tick(const CallContext& cc) {
  SweepRef none;
  if (Begin(cc, std::nullopt, none)) {
    const Cleanup unlock([this] { End(nullptr); });
    const Running running = FindRunning();
    KeepEntries(running);
    const auto read = [this](std::map<std::string, Entry>& entries) {
      for (auto& [id, entry] : entries) {
        const auto usage = entry.reader.ReadCpu(scratch_);
        if (usage) entry.rate.Add(clock_.Wall().time_since_epoch().count(), *usage);
      }
    };
    read(container_entries_);
    read(pod_entries_);
  }
  std::vector<std::string> dirs;
  for (const ContainerRef& container : state_.Containers()) {
    std::string dir = UpperDirOf(*container);
    if (IsListed(*container) && !dir.empty()) dirs.push_back(std::move(dir));
  }
  disks_.SetDirs(dirs);
  CountDisks(cc);
}

void Collector::CountDisks(const CallContext& cc) { disks_.Update(cc, kDiskBudget); }

std::optional<DiskUsage> Collector::DiskOf(const ContainerRecord& container) {
  const std::string dir = UpperDirOf(container);
  return dir.empty() ? std::nullopt : disks_.Get(dir);
}

Collector::Running Collector::FindRunning() const {
  Running running;
  running.containers = state_.Containers();
  std::erase_if(running.containers, [](const ContainerRef& one) { return !Runs(one.get()); });
  running.pods = state_.Pods();
  std::erase_if(running.pods, [](const PodRef& one) { return one->phase() != v1::LIVE; });
  return running;
}

/// One entry for each that runs, none for those that no longer do.
void Collector::KeepEntries(const Running& running) {
  const auto keep = [this](const auto& records, std::map<std::string, Entry>& entries,
                           const auto& path_of) {
    std::map<std::string, Entry> next;
    for (const auto& record : records) {
      if (auto known = entries.extract(record->id())) {
        next.insert(std::move(known));
        continue;
      }
      const std::size_t kept = container_entries_.size() + pod_entries_.size() + next.size();
      const bool keep_open = (kept + 1) * CgroupReader::kKept <= options_.max_descriptors;
      Entry& entry =
          next.try_emplace(record->id(), cgroups_, path_of(*record), keep_open).first->second;
      const std::int64_t now = clock_.Wall().time_since_epoch().count();
      if (now - record->created_at() < kYoung) entry.rate.Add(record->created_at(), 0);
    }
    entries = std::move(next);
  };
  keep(running.containers, container_entries_,
       [](const ContainerRecord& record) { return record.cgroup_path(); });
  keep(running.pods, pod_entries_, [](const PodRecord& record) { return record.cgroup_parent(); });
}

SweepRef Collector::DoSweep(Depth depth) {
  auto sweep = std::make_shared<Sweep>();
  sweep->depth = depth;
  sweep->at = clock_.Now();
  // Before the records are looked at: they may only be newer than that.
  sweep->seq = state_.seq();
  const Running running = FindRunning();
  KeepEntries(running);
  sweep->containers = SampleContainers(running.containers, depth);
  sweep->file_system.mountpoint = options_.storage_root;
  sweep->free_swap_bytes = FreeSwap(scratch_);
  if (depth == Depth::kContainers) return sweep;

  std::map<std::string, int> sharers;  // pods of a cgroup
  for (const PodRef& pod : running.pods) ++sharers[pod->cgroup_parent()];
  sweep->pods.reserve(running.pods.size());
  std::map<std::string, PodSample*> by_id;
  for (const PodRef& pod : running.pods) {
    sweep->pods.push_back(SamplePod(pod, sharers[pod->cgroup_parent()] > 1, depth));
    by_id[pod->id()] = &sweep->pods.back();
  }
  for (const ContainerSample& container : sweep->containers) {
    const auto pod = by_id.find(container.record->pod_id());
    if (pod != by_id.end()) pod->second->containers.push_back(&container);
  }
  for (PodSample& pod : sweep->pods) {
    if (sharers[pod.record->cgroup_parent()] > 1) SumContainers(pod);
  }
  ReadPodNetworks(*sweep);
  if (depth == Depth::kMetrics) sweep->file_system = FileSystemAt(options_.storage_root);
  return sweep;
}

std::vector<ContainerSample> Collector::SampleContainers(
    const std::vector<ContainerRef>& containers, Depth depth) {
  std::vector<ContainerSample> samples(containers.size());
  const auto part = [&](std::size_t begin, std::size_t end, Scratch& scratch) {
    for (std::size_t i = begin; i < end; ++i) {
      samples[i] = SampleContainer(containers[i], depth, scratch);
    }
    return Status::Ok();
  };
  const std::size_t half = samples.size() / 2;
  if (half < kWorthAThread || !options_.side_by_side) {
    static_cast<void>(part(0, samples.size(), scratch_));
    return samples;
  }
  // Each container has files and a rate of its own; what they share is only read, or has a lock.
  options_.side_by_side({[&] { return part(0, half, scratch_); },
                         [&] { return part(half, samples.size(), second_scratch_); }});
  // After an exception, which has been told of.
  std::erase_if(samples, [](const ContainerSample& sample) { return sample.record == nullptr; });
  return samples;
}

ContainerSample Collector::SampleContainer(const ContainerRef& container, Depth depth,
                                           Scratch& scratch) {
  Entry& entry = container_entries_.at(container->id());
  ContainerSample sample{.record = container};
  sample.at = clock_.Wall().time_since_epoch().count();
  sample.usage = entry.reader.ReadUsage(scratch);
  if (sample.usage.cpu_ns) entry.rate.Add(sample.at, *sample.usage.cpu_ns);
  sample.nano_cores = entry.rate.nano_cores();
  sample.disk = DiskOf(*container);
  if (depth >= Depth::kPods) {
    const std::vector<int> pids = entry.reader.ReadPids(scratch);
    sample.processes.count = pids.size();
    if (depth == Depth::kMetrics) {
      sample.details = entry.reader.ReadDetails(scratch);
      sample.processes = processes_.Read(pids, scratch);
    }
  }
  return sample;
}

PodSample Collector::SamplePod(const PodRef& pod, bool shared, Depth depth) {
  PodSample sample{.record = pod};
  sample.at = clock_.Wall().time_since_epoch().count();
  if (shared) return sample;
  Entry& entry = pod_entries_.at(pod->id());
  sample.usage = entry.reader.ReadUsage(scratch_);
  if (sample.usage.cpu_ns) entry.rate.Add(sample.at, *sample.usage.cpu_ns);
  sample.nano_cores = entry.rate.nano_cores();
  const std::vector<int> pids = entry.reader.ReadPids(scratch_);
  sample.process_count = pids.size();
  if (depth == Depth::kMetrics) {
    sample.details = entry.reader.ReadDetails(scratch_);
    sample.processes = processes_.Read(pids, scratch_);
  }
  return sample;
}

/// For pods that were put into one cgroup together, whose use is not that of one of them.
void Collector::SumContainers(PodSample& pod) const {
  for (const ContainerSample* container : pod.containers) {
    const CgroupUsage& one = container->usage;
    CgroupUsage& sum = pod.usage;
    AddTo(sum.cpu_ns, one.cpu_ns);
    AddTo(pod.nano_cores, container->nano_cores);
    AddTo(sum.memory_bytes, one.memory_bytes);
    AddTo(sum.swap_bytes, one.swap_bytes);
    AddTo(sum.tasks, one.tasks);
    sum.inactive_file_bytes += one.inactive_file_bytes;
    sum.active_file_bytes += one.active_file_bytes;
    sum.rss_bytes += one.rss_bytes;
    sum.cache_bytes += one.cache_bytes;
    sum.mapped_bytes += one.mapped_bytes;
    sum.page_faults += one.page_faults;
    sum.major_page_faults += one.major_page_faults;
    pod.process_count += container->processes.count;
    pod.processes.Add(container->processes);
    pod.details.cpu_user_ns += container->details.cpu_user_ns;
    pod.details.cpu_system_ns += container->details.cpu_system_ns;
    pod.details.oom_kills += container->details.oom_kills;
  }
}

void Collector::ReadPodNetworks(Sweep& sweep) const {
  std::vector<PodSample*> pods;
  std::vector<std::string> paths;
  for (PodSample& pod : sweep.pods) {
    if (pod.record->netns_path().empty() || IsHostNetwork(pod.record->config())) continue;
    pods.push_back(&pod);
    paths.push_back(pod.record->netns_path());
  }
  auto found = ReadNetworks(paths);
  for (std::size_t i = 0; i < pods.size(); ++i) pods[i]->network = std::move(found[i]);
}

}  // namespace crisp::rund
