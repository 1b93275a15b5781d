#include "services/crispctl/node_checks.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <iterator>
#include <set>

#include "services/crispctl/in_force.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

constexpr std::uint64_t kLeastBytes = 10;  // percent
constexpr std::uint64_t kLeastFiles = 5;   // percent

std::string NameOf(const DaemonLine& line) {
  return fmt::format("{}/{}", line.service, line.instance);
}

std::string KeysOf(const std::vector<PendingKey>& pending, bool live) {
  std::vector<std::string> keys;
  for (const PendingKey& one : pending) {
    if (one.live == live) keys.push_back(one.key);
  }
  return fmt::format("{}", fmt::join(keys, ", "));
}

void AddPending(const DaemonLine& line, const settings::Settings& files,
                std::vector<NodeProblem>& problems) {
  if (!line.running) return;
  const auto pending = PendingOf(line.service, line.instance, *line.running, files);
  if (const std::string keys = KeysOf(pending, true); !keys.empty()) {
    problems.emplace_back(fmt::format("{} has not taken {} from the files yet", NameOf(line), keys),
                          "crispctl reload; what is in force: crispctl config diff --running");
  }
  if (const std::string keys = KeysOf(pending, false); !keys.empty()) {
    problems.emplace_back(
        fmt::format("{} was started with another {} than the files have now", NameOf(line), keys),
        fmt::format("systemctl restart {} (pods run on); what is in force: crispctl config diff "
                    "--running",
                    UnitOf(line.service, line.instance)));
  }
}

DiskSpace SpaceOf(const struct statvfs& info) {
  return {.bytes = std::uint64_t{info.f_blocks} * info.f_frsize,
          .free_bytes = std::uint64_t{info.f_bavail} * info.f_frsize,
          .files = info.f_files,
          .free_files = info.f_favail};
}

bool IsBelow(std::uint64_t part, std::uint64_t whole, std::uint64_t percent) {
  return whole > 0 && part < whole / 100 * percent;
}

}  // namespace

std::vector<NodeProblem> VersionProblems(const std::vector<DaemonLine>& daemons) {
  std::vector<NodeProblem> problems;
  const auto restart = [](const DaemonLine& line) {
    return fmt::format("after an upgrade: systemctl restart {} (pods run on)",
                       UnitOf(line.service, line.instance));
  };
  const daemon::v1::InfoResponse* first = nullptr;  // of our version
  for (const DaemonLine& line : daemons) {
    if (!line.info.ok()) continue;
    if (line.info->version() != CRISP_VERSION) {
      problems.emplace_back(fmt::format("{} is version {}, crispctl is {}", NameOf(line),
                                        line.info->version(), CRISP_VERSION),
                            restart(line));
      continue;
    }
    if (first == nullptr) first = &*line.info;
    if (line.info->commit() != first->commit()) {
      problems.emplace_back(
          fmt::format("{} is another build ({}) than {}/{} ({})", NameOf(line), line.info->commit(),
                      first->service(), first->instance(), first->commit()),
          restart(line));
    }
  }
  return problems;
}

SettingsFiles ReadSettingsFiles(const std::vector<DaemonLine>& daemons) {
  SettingsFiles files;
  for (const DaemonLine& line : daemons) {
    if (!line.info.ok() || line.info->config().empty()) continue;
    const std::string& path = line.info->config();
    if (!files.contains(path)) files.emplace(path, settings::Load(path));
  }
  return files;
}

std::vector<NodeProblem> SettingsProblems(const SettingsFiles& files) {
  std::vector<NodeProblem> problems;
  for (const auto& [path, settings] : files) {
    if (settings.ok()) continue;
    problems.emplace_back("the settings files are wrong: " + settings.status().message(),
                          "the daemons run on with those that they have, and would not start "
                          "again: mend the file, then 'crispctl config check'");
  }
  return problems;
}

std::vector<NodeProblem> PendingSettings(const std::vector<DaemonLine>& daemons,
                                         const SettingsFiles& files) {
  std::vector<NodeProblem> pending;
  for (const DaemonLine& line : daemons) {
    if (!line.info.ok()) continue;
    const auto file = files.find(line.info->config());
    if (file != files.end() && file->second.ok()) AddPending(line, *file->second, pending);
  }
  return pending;
}

std::optional<NodeProblem> DiskProblem(const std::string& path, const DiskSpace& space) {
  const std::string hint =
      "'crispctl images' shows what can go with 'crispctl rmi', 'crispctl stats' which containers "
      "write most; the kubelet evicts pods of a node that has no room";
  if (IsBelow(space.free_bytes, space.bytes, kLeastBytes)) {
    return NodeProblem(fmt::format("the disk of {} is nearly full: {} of {} are left", path,
                                   Size(space.free_bytes), Size(space.bytes)),
                       hint);
  }
  if (IsBelow(space.free_files, space.files, kLeastFiles)) {
    return NodeProblem(fmt::format("the disk of {} has room for {} files more, of {}", path,
                                   space.free_files, space.files),
                       hint);
  }
  return std::nullopt;
}

std::vector<NodeProblem> DiskProblems(const std::vector<DaemonLine>& daemons) {
  std::set<std::string> paths;
  for (const DaemonLine& line : daemons) {
    if (!line.running) continue;
    paths.insert(
        {line.running->state_root, line.running->run_root, line.running->imaged.image_root});
  }
  std::vector<NodeProblem> problems;
  std::set<dev_t> seen;
  for (const std::string& path : paths) {
    struct stat where {};
    struct statvfs info {};
    if (path.empty() || ::stat(path.c_str(), &where) != 0) continue;
    if (!seen.insert(where.st_dev).second || ::statvfs(path.c_str(), &info) != 0) continue;
    if (auto problem = DiskProblem(path, SpaceOf(info))) problems.push_back(*std::move(problem));
  }
  return problems;
}

}  // namespace crisp::ctl
