#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cri/v1/api.pb.h"
#include "libs/base/result.h"
#include "libs/os/cgroup.h"

namespace crisp::rund {

/// What one file of a cgroup is to hold.
struct CgroupSetting {
  std::string path;
  std::string value;
};

/// cpu.weight (1 to 10000) of cpu.shares (2 to 262144): the line that all runtimes draw, so that a
/// restarted container weighs what an updated one does.
std::int64_t CpuWeightOf(std::int64_t shares);
constexpr std::int64_t kDefaultCpuPeriod = 100'000;  // microseconds

/// The files of cgroup `path` that these resources mean, v1 or v2, in an order in which the kernel
/// takes them from what they hold now (a limit of memory is never above that of memory and swap, a
/// quota never above the parent's). Fields that are zero or empty leave no trace; the
/// oom_score_adj is no matter of cgroups. kFailedPrecondition: a limit whose controller is missing.
Result<std::vector<CgroupSetting>> CgroupSettings(
    const os::Cgroups& cgroups, const std::string& path,
    const runtime::v1::LinuxContainerResources& resources);

/// Such a file of cgroup v2 has a line per device or resource, and a write is about one of them:
/// writing back what was read does not undo it. Or it cannot be read at all.
bool IsKeyedFile(std::string_view file);

/// What would undo ApplyCgroupSettings: what the files hold now, the last one first.
Result<std::vector<CgroupSetting>> UndoOf(const std::vector<CgroupSetting>& settings);

/// Writes all of them, or, when one is refused, none: what was written before gets its old value
/// back. The error names the file and the value (kFailedPrecondition: there is no such file).
/// Answers what undoes it all: the old values, the last one first.
Result<std::vector<CgroupSetting>> ApplyCgroupSettings(const std::vector<CgroupSetting>& settings);

}  // namespace crisp::rund
