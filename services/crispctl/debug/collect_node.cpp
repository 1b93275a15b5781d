#include <fmt/format.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/process/command.h"
#include "libs/settings/settings.h"
#include "services/crispctl/debug/collect.h"
#include "services/crispctl/debug/redact.h"
#include "services/crispctl/output.h"

namespace crisp::ctl::debug {
namespace {

constexpr std::chrono::seconds kJournal{20};
constexpr const char* kJournalLines = "--lines=1000";
constexpr long kCgroup2Magic = 0x63677270;

/// What is in force, or the defaults where the settings are wrong: the paths are good enough.
settings::Settings SettingsOf(const Scope& scope) {
  settings::Settings settings = settings::Load(scope.config).value_or(settings::Settings());
  if (!scope.endpoint.run_root.empty()) settings.run_root = scope.endpoint.run_root;
  return settings;
}

Result<std::string> Kernel() {
  std::string text = CRISP_TRY(os::ReadFile("/proc/version"));
  text += os::ReadFile("/etc/os-release").value_or("");
  return text;
}

/// "v2", "v1", "hybrid", with the controllers of v2.
Result<std::string> CgroupMode() {
  struct statfs info {};
  if (::statfs("/sys/fs/cgroup", &info) != 0) return Status::Errno(errno, "/sys/fs/cgroup");
  if (info.f_type == kCgroup2Magic) {
    return fmt::format("v2\n{}", os::ReadFile("/sys/fs/cgroup/cgroup.controllers").value_or(""));
  }
  const bool hybrid = os::IsDirectory("/sys/fs/cgroup/unified");
  return fmt::format("{}\n{}", hybrid ? "hybrid" : "v1",
                     os::ReadFile("/proc/self/cgroup").value_or(""));
}

/// The lines of mountinfo for what is at or below one of the roots.
Result<std::string> MountsBelow(const std::vector<std::string>& roots) {
  const std::string all = CRISP_TRY(os::ReadFile("/proc/self/mountinfo", MiB(64)));
  std::string some;
  std::string_view rest = all;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    for (const std::string& root : roots) {
      const std::size_t at = line.find(" " + root);
      if (at == line.npos) continue;
      some.append(line).append("\n");
      break;
    }
  }
  return RedactText(some);
}

std::string DiskUsage(const std::vector<std::string>& roots) {
  Table table({"PATH", "SIZE", "FREE", "INODES", "FREE"});
  for (const std::string& root : roots) {
    struct statvfs info {};
    if (::statvfs(root.c_str(), &info) != 0) {
      table.Add({root, Status::Errno(errno, "{}", root).message(), "", "", ""});
      continue;
    }
    table.Add({root, Size(info.f_blocks * info.f_frsize), Size(info.f_bavail * info.f_frsize),
               std::to_string(info.f_files), std::to_string(info.f_favail)});
  }
  return table.Render();
}

/// Names alone: configurations may hold credentials of a network's controller.
std::string NamesIn(const std::vector<std::string>& directories) {
  std::string text;
  for (const std::string& directory : directories) {
    const auto names = os::ListDir(directory);
    text += fmt::format(
        "{}: {}\n", directory,
        names.ok() ? fmt::format("{}", fmt::join(*names, " ")) : names.status().message());
  }
  return text;
}

Result<std::string> Journal(const std::string& journalctl, const std::string& unit) {
  const process::Command command{
      .program = journalctl,
      .args = {"--no-pager", kJournalLines, "--output=short-iso", "--unit=" + unit},
      .env = process::PlainEnvironment(),
      .stdin_data = {},
      .cwd = {},
      .fds = {}};
  const process::Output output = CRISP_TRY(
      process::Run(CallContext::Background(kJournal, "crispctl"), command, {.max_output = MiB(8)}));
  if (output.exit_code != 0) {
    return Unavailable("{} ended with {}: {}", journalctl, output.exit_code, output.err);
  }
  return RedactText(output.out);
}

}  // namespace

void CollectNode(const Scope& scope, const Findings& found, Bundle& bundle) {
  const settings::Settings settings = SettingsOf(scope);
  std::vector<std::string> roots = {settings.state_root, settings.run_root};
  if (!settings.imaged.image_root.empty()) roots.push_back(settings.imaged.image_root);
  bundle.Add("node/kernel.txt", Kernel());
  bundle.Add("node/cgroup.txt", CgroupMode());
  bundle.Add("node/mounts.txt", MountsBelow(roots));
  bundle.Add("node/disk.txt", DiskUsage(roots));
  bundle.Add("node/memory.txt", os::ReadFile("/proc/meminfo"));
  bundle.Add("node/load.txt", os::ReadFile("/proc/loadavg"));
  bundle.Add("cni/configurations.txt", NamesIn(settings.netd.conf_dirs));
  bundle.Add("cni/plugins.txt", NamesIn(settings.netd.bin_dirs));
  for (const DaemonLine& line : found.daemons) {
    const std::string unit = UnitOf(line.service, line.instance);
    bundle.Add(fmt::format("logs/{}.log", unit), Journal(scope.journalctl, unit));
  }
}

}  // namespace crisp::ctl::debug
