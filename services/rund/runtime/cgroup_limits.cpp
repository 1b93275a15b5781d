#include "services/rund/runtime/cgroup_limits.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <limits>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"

namespace crisp::rund {
namespace {

using Resources = runtime::v1::LinuxContainerResources;

/// The number in a file; what is no number ("max") is as much as there can be.
Result<std::int64_t> ReadNumber(const std::string& path) {
  const std::string text = CRISP_TRY(os::ReadFile(path, KiB(4)));
  std::int64_t value = std::numeric_limits<std::int64_t>::max();
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

/// -1 is no limit, on v2 a word.
std::string V2Limit(std::int64_t bytes) { return bytes < 0 ? "max" : std::to_string(bytes); }

/// What is not on this node is not to be taken for a container that is not.
Status Absent(const Status& status, std::string_view what) {
  const Code code = status.code() == Code::kNotFound ? Code::kFailedPrecondition : status.code();
  return Status(code, status.message()).While("{}", what);
}

class Builder {
 public:
  Builder(const os::Cgroups& cgroups, const std::string& path)
      : cgroups_(cgroups), path_(path), v2_(cgroups.mode() == os::CgroupMode::kV2) {}

  Status Cpu(const Resources& r) {
    if (r.cpu_shares() == 0 && r.cpu_quota() == 0 && r.cpu_period() == 0) return Status::Ok();
    const std::string dir = CRISP_TRY(Dir("cpu", "cpu_shares, cpu_quota and cpu_period"));
    if (v2_) return CpuV2(r, dir);
    if (r.cpu_shares() != 0) Set(dir + "/cpu.shares", r.cpu_shares());
    const std::string period = dir + "/cpu.cfs_period_us";
    const std::string quota = dir + "/cpu.cfs_quota_us";
    // In between the share must not be above that of the parent: a longer period lessens it, so it
    // comes first; a shorter one after the quota.
    const bool period_first =
        r.cpu_period() != 0 && r.cpu_period() >= CRISP_TRY(ReadNumber(period));
    if (period_first) Set(period, r.cpu_period());
    if (r.cpu_quota() != 0) Set(quota, std::max<std::int64_t>(r.cpu_quota(), -1));
    if (r.cpu_period() != 0 && !period_first) Set(period, r.cpu_period());
    return Status::Ok();
  }

  Status Cpuset(const Resources& r) {
    if (r.cpuset_cpus().empty() && r.cpuset_mems().empty()) return Status::Ok();
    const std::string dir = CRISP_TRY(Dir("cpuset", "cpuset_cpus and cpuset_mems"));
    if (!r.cpuset_cpus().empty()) settings_.push_back({dir + "/cpuset.cpus", r.cpuset_cpus()});
    if (!r.cpuset_mems().empty()) settings_.push_back({dir + "/cpuset.mems", r.cpuset_mems()});
    return Status::Ok();
  }

  Status Memory(const Resources& r) {
    const std::int64_t limit = r.memory_limit_in_bytes();
    const std::int64_t both = r.memory_swap_limit_in_bytes();
    if (limit == 0 && both == 0) return Status::Ok();
    const std::string dir = CRISP_TRY(Dir("memory", "memory_limit_in_bytes"));
    if (v2_) {
      if (limit != 0) settings_.push_back({dir + "/memory.max", V2Limit(limit)});
      if (both != 0 && os::Exists(dir + "/memory.swap.max")) {
        const std::int64_t swap = both < 0 ? -1 : limit > 0 ? both - limit : both;
        settings_.push_back({dir + "/memory.swap.max", V2Limit(swap)});
      }
      return Status::Ok();
    }
    const std::string memory = dir + "/memory.limit_in_bytes";
    const std::string memsw = dir + "/memory.memsw.limit_in_bytes";
    const bool with_swap = both != 0 && os::Exists(memsw);
    const bool swap_first = with_swap && (both < 0 || both > CRISP_TRY(ReadNumber(memsw)));
    if (swap_first) Set(memsw, both);
    if (limit != 0) Set(memory, limit);
    if (with_swap && !swap_first) Set(memsw, both);
    return Status::Ok();
  }

  Status Hugepages(const Resources& r) {
    for (const auto& hugepage : r.hugepage_limits()) {
      if (hugepage.limit() == 0) continue;  // not said: of a container they are in its spec
      const std::string file =
          fmt::format("/hugetlb.{}.{}", hugepage.page_size(), v2_ ? "max" : "limit_in_bytes");
      settings_.push_back(
          {CRISP_TRY(Dir("hugetlb", "hugepage_limits")) + file, std::to_string(hugepage.limit())});
    }
    return Status::Ok();
  }

  Status Unified(const Resources& r) {
    if (r.unified().empty()) return Status::Ok();
    auto unified = cgroups_.UnifiedDir(path_);
    if (!unified.ok()) return Absent(unified.status(), "linux.resources.unified");
    const std::string dir = *std::move(unified);
    for (const auto& [file, value] : r.unified()) settings_.push_back({dir + "/" + file, value});
    return Status::Ok();
  }

  std::vector<CgroupSetting> Take() { return std::move(settings_); }

 private:
  Result<std::string> Dir(std::string_view controller, std::string_view fields) const {
    auto dir = cgroups_.DirFor(controller, path_);
    if (dir.ok()) return dir;
    return Absent(dir.status(), fmt::format("linux.resources: {}", fields));
  }
  void Set(const std::string& file, std::int64_t value) {
    settings_.push_back({file, std::to_string(value)});
  }
  Status CpuV2(const Resources& r, const std::string& dir) {
    if (r.cpu_shares() != 0) Set(dir + "/cpu.weight", CpuWeightOf(r.cpu_shares()));
    if (r.cpu_quota() == 0 && r.cpu_period() == 0) return Status::Ok();
    const std::int64_t period = r.cpu_period() != 0 ? r.cpu_period() : kDefaultCpuPeriod;
    const std::string quota = r.cpu_quota() > 0 ? std::to_string(r.cpu_quota()) : "max";
    settings_.push_back({dir + "/cpu.max", fmt::format("{} {}", quota, period)});
    return Status::Ok();
  }

  const os::Cgroups& cgroups_;
  const std::string& path_;
  const bool v2_;
  std::vector<CgroupSetting> settings_;
};

// An empty write is none at all.
Status Write(const CgroupSetting& setting) {
  return os::WriteExisting(setting.path, setting.value.empty() ? "\n" : setting.value);
}

}  // namespace

std::int64_t CpuWeightOf(std::int64_t shares) {
  const std::int64_t bounded = std::clamp<std::int64_t>(shares, 2, 262'144);
  return 1 + ((bounded - 2) * 9999) / 262'142;
}

Result<std::vector<CgroupSetting>> CgroupSettings(
    const os::Cgroups& cgroups, const std::string& path,
    const runtime::v1::LinuxContainerResources& resources) {
  Builder builder(cgroups, path);
  CRISP_TRY(builder.Cpu(resources));
  CRISP_TRY(builder.Cpuset(resources));
  CRISP_TRY(builder.Memory(resources));
  CRISP_TRY(builder.Hugepages(resources));
  CRISP_TRY(builder.Unified(resources));
  return builder.Take();
}

bool IsKeyedFile(std::string_view file) {
  return file.starts_with("io.") || file.starts_with("misc.") || file.starts_with("rdma.") ||
         file == "memory.reclaim";
}

Result<std::vector<CgroupSetting>> UndoOf(const std::vector<CgroupSetting>& settings) {
  std::vector<CgroupSetting> undo;
  for (const CgroupSetting& setting : settings) {
    auto before = os::ReadFile(setting.path, KiB(64));
    if (!before.ok()) return Absent(before.status(), "linux.resources");
    while (!before->empty() && before->back() == '\n') before->pop_back();
    if (*before != setting.value) undo.insert(undo.begin(), {setting.path, *std::move(before)});
  }
  return undo;
}

Result<std::vector<CgroupSetting>> ApplyCgroupSettings(const std::vector<CgroupSetting>& settings) {
  std::vector<CgroupSetting> undo;
  for (const CgroupSetting& setting : settings) {
    auto before = os::ReadFile(setting.path, KiB(64));
    Status status = before.ok() ? Status::Ok() : before.status();
    if (status.ok()) {
      while (!before->empty() && before->back() == '\n') before->pop_back();
      if (*before == setting.value) continue;
      status = Write(setting);
    }
    if (status.ok()) {
      undo.insert(undo.begin(), {setting.path, *std::move(before)});
      continue;
    }
    for (const CgroupSetting& old : undo) log::IfError("take back a limit", Write(old));
    return Absent(status, fmt::format("linux.resources: write '{}'", setting.value));
  }
  return undo;
}

}  // namespace crisp::rund
