#include "services/rund/stats/cgroup_reader.h"

#include <dirent.h>

#include <algorithm>
#include <memory>

#include "libs/os/files.h"

namespace crisp::rund {
namespace {

constexpr std::uint64_t kNsPerUs = 1000;
// v1 writes "no limit" as the largest multiple of a page size: 4 to 64 KiB below 2^63.
constexpr std::uint64_t kUnlimited = (std::uint64_t{1} << 63U) - (64U << 10U);
constexpr int kMaxDepth = 16;
// of /proc/<pid>/stat and cpuacct.stat: USER_HZ is part of the ABI
constexpr std::uint64_t kNsPerTick = 10'000'000;

std::string DirOf(const Result<std::string>& dir) { return dir.ok() ? *dir : std::string(); }

std::uint64_t Minus(std::uint64_t from, std::uint64_t what) {
  return from > what ? from - what : 0;
}

std::optional<std::uint64_t> LimitOf(std::string_view text) {
  const auto limit = ParseNumber(text);
  return limit && *limit >= kUnlimited ? std::nullopt : limit;
}

std::uint64_t NumberIn(const std::string& dir, const char* name, Scratch& scratch) {
  return dir.empty() ? 0 : ParseNumber(ReadOnce(dir + "/" + name, scratch)).value_or(0);
}

std::vector<std::string> Directories(const std::string& dir) {
  std::vector<std::string> found;
  const std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir(dir.c_str()), ::closedir);
  if (open == nullptr) return found;
  while (const dirent* entry = ::readdir(open.get())) {
    if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
      found.push_back(dir + "/" + entry->d_name);
  }
  return found;
}

void AddPids(const std::string& dir, Scratch& scratch, int depth, std::vector<int>& pids) {
  for (const int pid : ParsePids(ReadOnce(dir + "/cgroup.procs", scratch))) pids.push_back(pid);
  if (depth == 0) return;
  for (const std::string& below : Directories(dir)) AddPids(below, scratch, depth - 1, pids);
}

}  // namespace

std::uint64_t CgroupUsage::WorkingSet() const {
  return Minus(memory_bytes.value_or(0), inactive_file_bytes);
}

std::optional<std::uint64_t> CgroupUsage::AvailableMemory() const {
  if (!memory_limit_bytes) return std::nullopt;
  return Minus(*memory_limit_bytes, WorkingSet());
}

CgroupReader::CgroupReader(const os::Cgroups& cgroups, const std::string& path, bool keep_open)
    : unified_(DirOf(cgroups.UnifiedDir(path))),
      hugetlb_(DirOf(cgroups.DirFor("hugetlb", path))),
      v2_(cgroups.mode() == os::CgroupMode::kV2) {
  const auto file = [keep_open](const std::string& dir, const char* name) {
    return dir.empty() ? KeptFile() : KeptFile(dir + "/" + name, keep_open);
  };
  cpu_pressure_ = file(unified_, "cpu.pressure");
  memory_pressure_ = file(unified_, "memory.pressure");
  io_pressure_ = file(unified_, "io.pressure");
  if (v2_) {
    cpu_ = cpuacct_ = memory_ = blkio_ = pids_ = unified_;
    cpu_usage_ = file(unified_, "cpu.stat");
    memory_usage_ = file(unified_, "memory.current");
    memory_limit_ = file(unified_, "memory.max");
    swap_usage_ = file(unified_, "memory.swap.current");
    swap_limit_ = file(unified_, "memory.swap.max");
  } else {
    cpu_ = DirOf(cgroups.DirFor("cpu", path));
    cpuacct_ = DirOf(cgroups.DirFor("cpuacct", path));
    memory_ = DirOf(cgroups.DirFor("memory", path));
    blkio_ = DirOf(cgroups.DirFor("blkio", path));
    pids_ = DirOf(cgroups.DirFor("pids", path));
    cpu_usage_ = file(cpuacct_, "cpuacct.usage");
    memory_usage_ = file(memory_, "memory.usage_in_bytes");
    memory_limit_ = file(memory_, "memory.limit_in_bytes");
    swap_usage_ = file(memory_, "memory.memsw.usage_in_bytes");
    swap_limit_ = file(memory_, "memory.memsw.limit_in_bytes");
  }
  memory_stat_ = file(memory_, "memory.stat");
  tasks_ = file(pids_, "pids.current");
}

std::optional<std::uint64_t> CgroupReader::ReadCpu(Scratch& scratch) {
  const std::string_view text = cpu_usage_.Read(scratch);
  if (!v2_) return ParseNumber(text);
  std::optional<std::uint64_t> usage;
  ForEachKey(text, [&usage](std::string_view key, std::uint64_t value) {
    if (key == "usage_usec") usage = value * kNsPerUs;
  });
  return usage;
}

CgroupUsage CgroupReader::ReadUsage(Scratch& scratch) {
  CgroupUsage usage;
  usage.cpu_ns = ReadCpu(scratch);
  ReadMemory(scratch, usage);
  ReadSwap(scratch, usage);
  usage.cpu_pressure = ParsePressure(cpu_pressure_.Read(scratch));
  usage.memory_pressure = ParsePressure(memory_pressure_.Read(scratch));
  usage.io_pressure = ParsePressure(io_pressure_.Read(scratch));
  usage.tasks = ParseNumber(tasks_.Read(scratch));
  return usage;
}

void CgroupReader::ReadMemory(Scratch& scratch, CgroupUsage& usage) {
  usage.memory_bytes = ParseNumber(memory_usage_.Read(scratch));
  usage.memory_limit_bytes = LimitOf(memory_limit_.Read(scratch));
  // On v1 the plain keys are of the cgroup itself, the total_ ones with those below; v2 has only
  // the latter, without the word.
  ForEachKey(memory_stat_.Read(scratch), [&](std::string_view key, std::uint64_t value) {
    if (!v2_) {
      if (key == "pgfault") usage.own_page_faults = value;
      if (key == "pgmajfault") usage.own_major_page_faults = value;
      if (!key.starts_with("total_")) return;
      key.remove_prefix(6);
    }
    if (key == "inactive_file") usage.inactive_file_bytes = value;
    if (key == "active_file") usage.active_file_bytes = value;
    if (key == (v2_ ? "anon" : "rss")) usage.rss_bytes = value;
    if (key == (v2_ ? "file" : "cache")) usage.cache_bytes = value;
    if (key == (v2_ ? "file_mapped" : "mapped_file")) usage.mapped_bytes = value;
    if (key == "pgfault") usage.page_faults = value;
    if (key == "pgmajfault") usage.major_page_faults = value;
  });
}

void CgroupReader::ReadSwap(Scratch& scratch, CgroupUsage& usage) {
  usage.swap_bytes = ParseNumber(swap_usage_.Read(scratch));
  usage.swap_limit_bytes = LimitOf(swap_limit_.Read(scratch));
  if (v2_) return;
  // v1 counts memory and swap in one, read a moment after the memory alone.
  if (usage.swap_bytes)
    *usage.swap_bytes = Minus(*usage.swap_bytes, usage.memory_bytes.value_or(0));
  if (usage.swap_limit_bytes) {
    *usage.swap_limit_bytes =
        Minus(*usage.swap_limit_bytes, usage.memory_limit_bytes.value_or(*usage.swap_limit_bytes));
  }
}

CgroupDetails CgroupReader::ReadDetails(Scratch& scratch) const {
  CgroupDetails details;
  if (v2_) {
    ReadDetailsV2(scratch, details);
  } else {
    ReadDetailsV1(scratch, details);
  }
  if (!pids_.empty()) {
    details.tasks_limit = ParseNumber(ReadOnce(pids_ + "/pids.max", scratch));
  }
  details.hugetlb = ReadHugetlb(scratch);
  return details;
}

void CgroupReader::ReadDetailsV1(Scratch& scratch, CgroupDetails& details) const {
  details.cpu_user_ns = NumberIn(cpuacct_, "cpuacct.usage_user", scratch);
  details.cpu_system_ns = NumberIn(cpuacct_, "cpuacct.usage_sys", scratch);
  if (details.cpu_user_ns + details.cpu_system_ns == 0 && !cpuacct_.empty()) {
    // Kernels before 4.6.
    ForEachKey(ReadOnce(cpuacct_ + "/cpuacct.stat", scratch),
               [&details](std::string_view key, std::uint64_t value) {
                 if (key == "user") details.cpu_user_ns = value * kNsPerTick;
                 if (key == "system") details.cpu_system_ns = value * kNsPerTick;
               });
  }
  if (!cpu_.empty()) {
    ForEachKey(ReadOnce(cpu_ + "/cpu.stat", scratch),
               [&details](std::string_view key, std::uint64_t value) {
                 if (key == "nr_periods") details.cfs_periods = value;
                 if (key == "nr_throttled") details.cfs_throttled_periods = value;
                 if (key == "throttled_time") details.cfs_throttled_ns = value;
               });
  }
  details.cpu_shares = NumberIn(cpu_, "cpu.shares", scratch);
  details.cpu_period_us = NumberIn(cpu_, "cpu.cfs_period_us", scratch);
  details.cpu_quota_us = NumberIn(cpu_, "cpu.cfs_quota_us", scratch);  // -1 = none
  details.memory_max_usage_bytes = NumberIn(memory_, "memory.max_usage_in_bytes", scratch);
  details.memory_kernel_bytes = NumberIn(memory_, "memory.kmem.usage_in_bytes", scratch);
  details.memory_limit_hits = NumberIn(memory_, "memory.failcnt", scratch);
  if (!memory_.empty()) {
    ForEachKey(ReadOnce(memory_ + "/memory.oom_control", scratch),
               [&details](std::string_view key, std::uint64_t value) {
                 if (key == "oom_kill") details.oom_kills = value;
               });
    details.memory_reservation_bytes =
        LimitOf(ReadOnce(memory_ + "/memory.soft_limit_in_bytes", scratch)).value_or(0);
    details.memory_swap_limit_bytes =
        LimitOf(ReadOnce(memory_ + "/memory.memsw.limit_in_bytes", scratch)).value_or(0);
  }
  if (!blkio_.empty()) {
    Scratch operations;
    details.io =
        ParseBlkio(ReadOnce(blkio_ + "/blkio.throttle.io_service_bytes_recursive", scratch),
                   ReadOnce(blkio_ + "/blkio.throttle.io_serviced_recursive", operations));
  }
}

void CgroupReader::ReadDetailsV2(Scratch& scratch, CgroupDetails& details) const {
  ForEachKey(ReadOnce(unified_ + "/cpu.stat", scratch),
             [&details](std::string_view key, std::uint64_t value) {
               if (key == "user_usec") details.cpu_user_ns = value * kNsPerUs;
               if (key == "system_usec") details.cpu_system_ns = value * kNsPerUs;
               if (key == "nr_periods") details.cfs_periods = value;
               if (key == "nr_throttled") details.cfs_throttled_periods = value;
               if (key == "throttled_usec") details.cfs_throttled_ns = value * kNsPerUs;
             });
  ForEachKey(ReadOnce(unified_ + "/memory.stat", scratch),
             [&details](std::string_view key, std::uint64_t value) {
               if (key == "kernel") details.memory_kernel_bytes = value;
             });
  ForEachKey(ReadOnce(unified_ + "/memory.events", scratch),
             [&details](std::string_view key, std::uint64_t value) {
               if (key == "max") details.memory_limit_hits = value;
               if (key == "oom_kill") details.oom_kills = value;
             });
  details.memory_max_usage_bytes = NumberIn(unified_, "memory.peak", scratch);
  details.memory_reservation_bytes =
      LimitOf(ReadOnce(unified_ + "/memory.low", scratch)).value_or(0);
  const auto memory = LimitOf(ReadOnce(unified_ + "/memory.max", scratch));
  const auto swap = LimitOf(ReadOnce(unified_ + "/memory.swap.max", scratch));
  if (memory && swap) details.memory_swap_limit_bytes = *memory + *swap;
  // "max 100000" or "20000 100000"
  std::string_view max = ReadOnce(unified_ + "/cpu.max", scratch);
  const std::string_view quota = NextWord(max);
  details.cpu_quota_us = ParseNumber(quota).value_or(0);
  details.cpu_period_us = ParseNumber(NextWord(max)).value_or(0);
  // A weight of 1 … 10000 stands for 2 … 262144 shares; the OCI runtimes map them so.
  const std::uint64_t weight = NumberIn(unified_, "cpu.weight", scratch);
  if (weight > 0) details.cpu_shares = 2 + (weight - 1) * 262142 / 9999;
  details.io = ParseIoStat(ReadOnce(unified_ + "/io.stat", scratch));
}

std::vector<HugetlbUsage> CgroupReader::ReadHugetlb(Scratch& scratch) const {
  std::vector<HugetlbUsage> found;
  if (hugetlb_.empty()) return found;
  const auto names = os::ListDir(hugetlb_);
  if (!names.ok()) return found;
  for (const std::string& name : *names) {
    // "hugetlb.2MB.current" or "hugetlb.2MB.usage_in_bytes"; "rsvd." comes after the size.
    constexpr std::string_view kStart = "hugetlb.";
    const std::size_t dot = name.find('.', kStart.size());
    if (!name.starts_with(kStart) || dot == std::string::npos) continue;
    const std::string_view kind = std::string_view(name).substr(dot + 1);
    if (kind != "current" && kind != "usage_in_bytes") continue;
    HugetlbUsage usage{.page_size = name.substr(kStart.size(), dot - kStart.size())};
    usage.usage_bytes = NumberIn(hugetlb_, name.c_str(), scratch);
    const std::string max = name.substr(0, dot) + ".max_usage_in_bytes";  // v1 only
    usage.max_usage_bytes = NumberIn(hugetlb_, max.c_str(), scratch);
    found.push_back(std::move(usage));
  }
  return found;
}

std::vector<int> CgroupReader::ReadPids(Scratch& scratch) const {
  std::vector<int> pids;
  const std::string& dir = !pids_.empty() ? pids_ : !memory_.empty() ? memory_ : unified_;
  if (!dir.empty()) AddPids(dir, scratch, kMaxDepth, pids);
  return pids;
}

}  // namespace crisp::rund
