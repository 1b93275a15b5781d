#include "libs/os/cgroup.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <ctime>
#include <filesystem>
#include <optional>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"

namespace crisp::os {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kFreezeTime{5};

constexpr std::array<std::string_view, 6> kNotControllers = {
    "rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode"};

std::vector<std::string> Split(std::string_view text, std::string_view separators) {
  std::vector<std::string> parts;
  while (true) {
    const std::size_t start = text.find_first_not_of(separators);
    if (start == std::string_view::npos) return parts;
    text.remove_prefix(start);
    const std::size_t end = std::min(text.find_first_of(separators), text.size());
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

/// "/a/b" → {"a", "b"}.
Result<std::vector<std::string>> Parts(const std::string& path) {
  if (path.empty() || path.front() != '/') {
    return InvalidArgument("cgroup '{}': not an absolute path", path);
  }
  std::vector<std::string> parts = Split(path, "/");
  if (parts.empty()) return InvalidArgument("cgroup '{}': the root is nobody's", path);
  for (const std::string& part : parts) {
    if (part == "." || part == ".." ||
        part.find_first_of(std::string_view("\n\0", 2)) != std::string::npos) {
      return InvalidArgument("cgroup '{}': not a plain path", path);
    }
  }
  return parts;
}

Result<std::string> Join(const std::string& mount_point, const std::string& path) {
  std::string directory = mount_point;
  for (const std::string& part : CRISP_TRY(Parts(path))) directory.append("/").append(part);
  return directory;
}

void Pause(std::chrono::milliseconds time) {
  const timespec wait = {0, std::chrono::nanoseconds(time).count()};
  ::ppoll(nullptr, 0, &wait, nullptr);
}

bool IsBlank(std::string_view text) {
  return text.find_first_not_of(" \t\n") == std::string_view::npos;
}

/// On v1 a new cpuset is empty, and takes no process until both have a value.
Status InheritCpuset(const std::string& parent, const std::string& child) {
  for (const char* file : {"/cpuset.cpus", "/cpuset.mems"}) {
    if (!IsBlank(CRISP_TRY(ReadFile(child + file)))) continue;
    std::string value = CRISP_TRY(ReadFile(parent + file));
    while (!value.empty() && value.back() == '\n') value.pop_back();
    if (!value.empty()) CRISP_TRY(WriteExisting(child + file, value));
  }
  return Status::Ok();
}

/// Best effort for each controller: one that cannot be enabled here (processes in the way, a kind
/// that only threads take) is missed by whoever sets its limits, with a better error.
Status EnableControllers(const std::string& directory) {
  const std::string available = CRISP_TRY(ReadFile(directory + "/cgroup.controllers"));
  const std::string enabled = CRISP_TRY(ReadFile(directory + "/cgroup.subtree_control"));
  const std::vector<std::string> have = Split(enabled, " \n");
  for (const std::string& name : Split(available, " \n")) {
    if (std::find(have.begin(), have.end(), name) != have.end()) continue;
    const Status status = WriteExisting(directory + "/cgroup.subtree_control", "+" + name);
    if (status.ok() || status.error() == EBUSY || status.error() == ENOENT ||
        status.error() == EINVAL || status.error() == EOPNOTSUPP) {
      continue;
    }
    return status;
  }
  return Status::Ok();
}

/// Directories at and below `top`, children first.
std::vector<std::string> TreeOf(const std::string& top) {
  std::vector<std::string> all;
  std::error_code error;
  if (!fs::is_directory(top, error)) return all;
  all.push_back(top);
  fs::recursive_directory_iterator walk(top, error);
  const fs::recursive_directory_iterator end;
  while (!error && walk != end) {
    std::error_code ignored;
    if (walk->is_directory(ignored) && !walk->is_symlink(ignored)) {
      all.push_back(walk->path().string());
    }
    walk.increment(error);  // a cgroup that goes meanwhile ends the walk: the caller comes again
  }
  std::sort(all.begin(), all.end(),
            [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
  return all;
}

/// The number after `key` in a file of "key number" lines.
std::optional<std::uint64_t> FlatValue(std::string_view text, std::string_view key) {
  for (const std::string& line : Split(text, "\n")) {
    const std::vector<std::string> words = Split(line, " ");
    if (words.size() != 2 || words[0] != key) continue;
    std::uint64_t value = 0;
    const std::string& number = words[1];
    std::from_chars(number.data(), number.data() + number.size(), value);
    return value;
  }
  return std::nullopt;
}

Status ReadPids(const std::string& directory, std::set<pid_t>& pids) {
  const Result<std::string> text = ReadFile(directory + "/cgroup.procs", MiB(64));
  if (!text.ok()) {
    // Gone meanwhile (ENODEV is a cgroup removed while open), or a threaded one.
    const int error = text.status().error();
    if (error == ENOENT || error == ENODEV || error == EOPNOTSUPP) return Status::Ok();
    return text.status();
  }
  for (const std::string& word : Split(*text, " \n")) {
    pid_t pid = 0;
    std::from_chars(word.data(), word.data() + word.size(), pid);
    if (pid > 0) pids.insert(pid);  // 0: of another PID namespace, not ours to touch
  }
  return Status::Ok();
}

}  // namespace

void Cgroups::WarmUp() const {
  const auto v1 = std::find_if(hierarchies_.begin(), hierarchies_.end(),
                               [](const Hierarchy& one) { return !one.v2; });
  if (v1 == hierarchies_.end() || v1->controllers.empty()) return;
  const auto own = CgroupOf(getpid(), *v1->controllers.begin());
  if (!own.ok()) return;
  static_cast<void>(WriteExisting(v1->mount_point + *own + "/cgroup.procs", "0").ok());
}

Result<Cgroups> Cgroups::Detect(const std::string& root, const std::string& mountinfo) {
  Cgroups cgroups;
  bool v1 = false;
  bool v2 = false;
  for (const MountEntry& mount : CRISP_TRY(ReadMounts(mountinfo))) {
    if (mount.type != "cgroup" && mount.type != "cgroup2") continue;
    if (mount.mount_point != root && !mount.mount_point.starts_with(root + "/")) continue;
    Hierarchy hierarchy;
    hierarchy.mount_point = mount.mount_point;
    hierarchy.v2 = mount.type == "cgroup2";
    if (hierarchy.v2) {
      if (v2) continue;
      const auto controllers = ReadFile(mount.mount_point + "/cgroup.controllers");
      if (controllers.code() == Code::kNotFound) continue;  // hidden by a mount over it
      const std::string names = CRISP_TRY(controllers);
      v2 = true;
      for (std::string& name : Split(names, " \n")) hierarchy.controllers.insert(std::move(name));
    } else {
      v1 = true;
      for (std::string& option : Split(mount.super_options, ",")) {
        if (std::find(kNotControllers.begin(), kNotControllers.end(), option) !=
                kNotControllers.end() ||
            option.starts_with("release_agent=")) {
          continue;
        }
        hierarchy.controllers.insert(std::move(option));
      }
    }
    for (const std::string& name : hierarchy.controllers) {
      if (!name.starts_with("name=")) cgroups.controllers_.insert(name);
    }
    cgroups.hierarchies_.push_back(std::move(hierarchy));
  }
  if (!v1 && !v2) return FailedPrecondition("no cgroup hierarchy is mounted at {}", root);
  cgroups.mode_ = !v1 ? CgroupMode::kV2 : v2 ? CgroupMode::kHybrid : CgroupMode::kV1;
  return cgroups;
}

bool Cgroups::HasController(std::string_view name) const {
  return controllers_.contains(std::string(name));
}

Result<std::string> Cgroups::RootFor(std::string_view controller) const {
  for (const Hierarchy& hierarchy : hierarchies_) {
    if (hierarchy.controllers.contains(std::string(controller))) return hierarchy.mount_point;
  }
  return NotFound("no cgroup controller '{}'", controller);
}

Result<std::string> Cgroups::DirFor(std::string_view controller, const std::string& path) const {
  return Join(CRISP_TRY(RootFor(controller)), path);
}

Result<std::string> Cgroups::UnifiedDir(const std::string& path) const {
  for (const Hierarchy& hierarchy : hierarchies_) {
    if (hierarchy.v2) return Join(hierarchy.mount_point, path);
  }
  return NotFound("no cgroup v2 hierarchy");
}

Status Cgroups::CreateIn(const Hierarchy& hierarchy, const std::string& path) const {
  constexpr mode_t kMode = 0755;
  const bool cpuset = !hierarchy.v2 && hierarchy.controllers.contains("cpuset");
  std::string directory = hierarchy.mount_point;
  for (const std::string& part : CRISP_TRY(Parts(path))) {
    if (mode_ == CgroupMode::kV2) CRISP_TRY(EnableControllers(directory));
    const std::string parent = directory;
    directory.append("/").append(part);
    if (::mkdir(directory.c_str(), kMode) != 0 && errno != EEXIST) {
      return Status::Errno(errno, "make cgroup {}", directory);
    }
    if (cpuset) CRISP_TRY(InheritCpuset(parent, directory));
  }
  return Status::Ok();
}

Status Cgroups::Create(const std::string& path) const {
  for (const Hierarchy& hierarchy : hierarchies_) CRISP_TRY(CreateIn(hierarchy, path));
  return Status::Ok();
}

Status Cgroups::RemoveIn(const Hierarchy& hierarchy, const std::string& path) const {
  const std::string top = CRISP_TRY(Join(hierarchy.mount_point, path));
  // A process that was just killed leaves within milliseconds: 1 + 2 + 4 … + 128 ms.
  constexpr int kMaxTries = 9;
  Status last;
  for (int attempt = 0; attempt < kMaxTries; ++attempt) {
    if (attempt > 0) Pause(std::chrono::milliseconds(1 << (attempt - 1)));
    last = Status::Ok();
    for (const std::string& directory : TreeOf(top)) {
      if (::rmdir(directory.c_str()) != 0 && errno != ENOENT) {
        last = Status::Errno(errno, "remove cgroup {}", directory);
        if (last.error() != EBUSY) return last;
      }
    }
    if (last.ok() && !os::Exists(top)) return last;
  }
  return last;
}

Status Cgroups::Remove(const std::string& path) const {
  Status first;
  for (const Hierarchy& hierarchy : hierarchies_) {
    Status status = RemoveIn(hierarchy, path);
    if (first.ok()) first = std::move(status);
  }
  return first;
}

Status Cgroups::Add(const std::string& path, pid_t pid) const {
  const std::string text = std::to_string(pid);
  for (const Hierarchy& hierarchy : hierarchies_) {
    const std::string directory = CRISP_TRY(Join(hierarchy.mount_point, path));
    CRISP_TRY(WriteExisting(directory + "/cgroup.procs", text));
  }
  return Status::Ok();
}

Result<std::vector<pid_t>> Cgroups::Pids(const std::string& path, bool recursive) const {
  std::set<pid_t> pids;
  for (const Hierarchy& hierarchy : hierarchies_) {
    const std::string top = CRISP_TRY(Join(hierarchy.mount_point, path));
    if (!recursive) {
      CRISP_TRY(ReadPids(top, pids));
      continue;
    }
    for (const std::string& directory : TreeOf(top)) CRISP_TRY(ReadPids(directory, pids));
  }
  return std::vector<pid_t>(pids.begin(), pids.end());
}

Status Cgroups::Kill(const std::string& path) const {
  if (const Result<std::string> unified = UnifiedDir(path); unified.ok()) {
    const Status killed = WriteExisting(*unified + "/cgroup.kill", "1");
    if (killed.ok() && mode_ == CgroupMode::kV2) return Status::Ok();
    if (!killed.ok() && killed.code() != Code::kNotFound) return killed;
  }
  const Result<std::string> freezer = DirFor("freezer", path);
  constexpr int kMaxTries = 8;
  for (int attempt = 0; attempt < kMaxTries; ++attempt) {
    if (attempt > 0) Pause(std::chrono::milliseconds(1 << (attempt - 1)));
    if (CRISP_TRY(Pids(path)).empty()) return Status::Ok();
    // Frozen, nobody forks away and no number passes to another process between reading and
    // killing. On v1 the signal works at the thaw.
    const bool frozen = freezer.ok() && WriteExisting(*freezer + "/freezer.state", "FROZEN").ok();
    Status status;
    const Result<std::vector<pid_t>> pids = Pids(path);
    if (pids.ok()) {
      for (const pid_t pid : *pids) {
        if (pid == 1 || pid == ::getpid()) continue;
        if (::kill(pid, SIGKILL) != 0 && errno != ESRCH && status.ok()) {
          status = Status::Errno(errno, "kill process {} of cgroup {}", pid, path);
        }
      }
    }
    if (frozen) {
      const Status thawed = WriteExisting(*freezer + "/freezer.state", "THAWED");
      if (!thawed.ok() && thawed.code() != Code::kNotFound) return thawed;
    }
    if (!pids.ok()) return pids.status();
    CRISP_TRY(std::move(status));
  }
  return Status::Ok();
}

Result<bool> Cgroups::Exists(const std::string& path) const {
  for (const Hierarchy& hierarchy : hierarchies_) {
    if (IsDirectory(CRISP_TRY(Join(hierarchy.mount_point, path)))) return true;
  }
  return false;
}

Result<std::uint64_t> Cgroups::OomKills(const std::string& path) const {
  const Result<std::string> directory = DirFor("memory", path);
  if (!directory.ok()) return std::uint64_t{0};
  // On v1 the count is a line of the file that switches the killing off.
  const char* file = mode_ == CgroupMode::kV2 ? "/memory.events" : "/memory.oom_control";
  const Result<std::string> text = ReadFile(*directory + file);
  if (!text.ok()) {
    if (text.code() == Code::kNotFound) return std::uint64_t{0};
    return text.status();
  }
  return FlatValue(*text, "oom_kill").value_or(0);
}

Result<std::uint64_t> Cgroups::MemoryInUse(const std::string& path) const {
  const std::string directory = CRISP_TRY(DirFor("memory", path));
  const bool v2 = mode_ == CgroupMode::kV2;
  const std::string text =
      CRISP_TRY(ReadFile(directory + (v2 ? "/memory.current" : "/memory.usage_in_bytes")));
  std::uint64_t used = 0;
  std::from_chars(text.data(), text.data() + text.size(), used);
  const std::string stat = CRISP_TRY(ReadFile(directory + "/memory.stat"));
  const std::string prefix = v2 ? "" : "total_";
  const std::uint64_t files = FlatValue(stat, prefix + "active_file").value_or(0) +
                              FlatValue(stat, prefix + "inactive_file").value_or(0);
  return used > files ? used - files : 0;
}

Status Cgroups::Freeze(const std::string& path) const {
  const bool v2 = mode_ == CgroupMode::kV2;
  const Result<std::string> dir = v2 ? UnifiedDir(path) : DirFor("freezer", path);
  if (!dir.ok()) return Unimplemented("there is no freezer of cgroups: {}", dir.status().message());
  const std::string order = *dir + (v2 ? "/cgroup.freeze" : "/freezer.state");
  const std::string state = *dir + (v2 ? "/cgroup.events" : "/freezer.state");
  const std::string_view frozen = v2 ? "frozen 1" : "FROZEN";
  CRISP_TRY(WriteExisting(order, v2 ? "1" : "FROZEN"));
  const auto end = std::chrono::steady_clock::now() + kFreezeTime;
  while (true) {
    const Result<std::string> text = ReadFile(state, KiB(4));
    if (text.ok() && text->find(frozen) != std::string::npos) return Status::Ok();
    if (!text.ok() || std::chrono::steady_clock::now() > end) {
      Status thawed = Thaw(path);
      if (!text.ok()) return text.status();
      if (!thawed.ok()) return std::move(thawed).While("a cgroup that does not freeze");
      return DeadlineExceeded("cgroup {} does not freeze", path);
    }
    poll(nullptr, 0, 1);
    // On v1 a process that came in between is caught by another order.
    if (!v2) CRISP_TRY(WriteExisting(order, "FROZEN"));
  }
}

Status Cgroups::Thaw(const std::string& path) const {
  Status status;
  if (mode_ == CgroupMode::kV2) {
    status = WriteExisting(CRISP_TRY(UnifiedDir(path)) + "/cgroup.freeze", "0");
  } else if (const Result<std::string> freezer = DirFor("freezer", path); freezer.ok()) {
    status = WriteExisting(*freezer + "/freezer.state", "THAWED");
  }
  return status.code() == Code::kNotFound ? Status::Ok() : status;
}

Result<std::string> CgroupOf(pid_t pid, std::string_view controller, const std::string& proc_root) {
  const std::string text = CRISP_TRY(ReadFile(fmt::format("{}/{}/cgroup", proc_root, pid)));
  for (const std::string& line : Split(text, "\n")) {
    // "4:memory:/a/b", "0::/a"
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first == std::string::npos ? first : first + 1);
    if (second == std::string::npos) continue;
    const std::string names = line.substr(first + 1, second - first - 1);
    const std::vector<std::string> list = Split(names, ",");
    const bool matches = controller.empty()
                             ? names.empty()
                             : std::find(list.begin(), list.end(), controller) != list.end();
    if (matches) return line.substr(second + 1);
  }
  return NotFound("process {} is in no cgroup of '{}'", pid, controller);
}

}  // namespace crisp::os
