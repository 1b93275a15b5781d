#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "services/crispctl/findings.h"

// What crispctl itself sees to be wrong with a node, beside what its daemons say.
namespace crisp::ctl {

using NodeProblem = std::pair<std::string, std::string>;  // what, and what to do about it

/// Daemons of another version than crispctl (an upgrade whose restarts are not done), or of other
/// builds of the same one.
std::vector<NodeProblem> VersionProblems(const std::vector<DaemonLine>& daemons);

/// By path.
using SettingsFiles = std::map<std::string, Result<settings::Settings>>;
/// What the files say that the daemons read. An older daemon does not say which it reads.
SettingsFiles ReadSettingsFiles(const std::vector<DaemonLine>& daemons);
/// Files that are wrong by now, so that the next start would fail.
std::vector<NodeProblem> SettingsProblems(const SettingsFiles& files);
/// No problems: keys of the files that a daemon does not run with yet.
std::vector<NodeProblem> PendingSettings(const std::vector<DaemonLine>& daemons,
                                         const SettingsFiles& files);

/// Of a file system, as statvfs(3) tells.
struct DiskSpace {
  std::uint64_t bytes = 0;
  std::uint64_t free_bytes = 0;  // for everybody, not for root alone
  std::uint64_t files = 0;       // inodes; 0: it has no limit of them
  std::uint64_t free_files = 0;
};
/// Nothing: there is room. Less than a tenth of the bytes or a twentieth of the inodes is too
/// little: the kubelet evicts pods there (its evictionHard).
std::optional<NodeProblem> DiskProblem(const std::string& path, const DiskSpace& space);
/// Of the file systems that the daemons' settings name, each once.
std::vector<NodeProblem> DiskProblems(const std::vector<DaemonLine>& daemons);

}  // namespace crisp::ctl
