#include "services/crispctl/why/places.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <future>
#include <memory>
#include <thread>

#include "libs/base/units.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"
#include "libs/os/proc_stat.h"

namespace crisp::ctl::why {
namespace {

constexpr std::size_t kMaxFrames = 12;

/// System calls whose first argument is the file that they are about.
constexpr std::array kOfDescriptor = {
    SYS_read,   SYS_write,     SYS_readv,     SYS_writev,    SYS_pread64,    SYS_pwrite64,
    SYS_fsync,  SYS_fdatasync, SYS_ftruncate, SYS_fallocate, SYS_getdents64, SYS_fstat,
    SYS_syncfs, SYS_flock,     SYS_fchmod,    SYS_fchown,    SYS_close,      SYS_ioctl,
};

std::vector<pid_t> NumbersIn(const std::string& dir) {
  std::vector<pid_t> numbers;
  for (const std::string& name : os::ListDir(dir).value_or(std::vector<std::string>())) {
    pid_t number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error == std::errc() && end == name.data() + name.size()) numbers.push_back(number);
  }
  return numbers;
}

/// "[<0>] fuse_wait_answer+0x1a/0x120 [fuse]" → "fuse_wait_answer".
std::string FunctionOf(std::string_view frame) {
  if (const auto bracket = frame.find("] "); bracket != frame.npos) {
    frame.remove_prefix(bracket + 2);
  }
  return std::string(frame.substr(0, frame.find('+')));
}

std::vector<std::string> StackOf(const std::string& task) {
  std::vector<std::string> frames;
  const std::string text = os::ReadFile(task + "/stack", KiB(64)).value_or("");
  std::string_view rest = text;
  while (!rest.empty() && frames.size() < kMaxFrames) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (!line.empty()) frames.push_back(FunctionOf(line));
  }
  return frames;
}

/// System calls whose second argument is a path, below the directory that the first one is.
constexpr std::array kOfPathAt = {
    SYS_openat,    SYS_newfstatat, SYS_statx,      SYS_mkdirat,   SYS_unlinkat, SYS_renameat,
    SYS_faccessat, SYS_faccessat2, SYS_readlinkat, SYS_utimensat, SYS_fchmodat, SYS_fchownat,
};

struct SystemCall {
  long number = -1;
  std::array<unsigned long, 2> arguments{};
};

/// "257 0xffffff9c 0x7ffd3ac65a72 ..."; nothing for "running" and "-1 0x...".
std::optional<SystemCall> CallOf(const std::string& task) {
  const std::string text = os::ReadFile(task + "/syscall", KiB(4)).value_or("");
  SystemCall call;
  const char* const stop = text.data() + text.size();
  auto parsed = std::from_chars(text.data(), stop, call.number);
  if (parsed.ec != std::errc() || call.number < 0) return std::nullopt;
  for (unsigned long& argument : call.arguments) {
    constexpr std::string_view kHex = " 0x";
    constexpr int kBase = 16;
    const std::string_view rest(parsed.ptr, static_cast<std::size_t>(stop - parsed.ptr));
    if (!rest.starts_with(kHex)) return std::nullopt;
    parsed = std::from_chars(parsed.ptr + kHex.size(), stop, argument, kBase);
  }
  return call;
}

template <typename Calls>
bool IsOneOf(const Calls& calls, long number) {
  return std::find(calls.begin(), calls.end(), number) != calls.end();
}

/// A text in the memory of a process. That may be out of reach for as long as the process hangs
/// there: then "", after a moment.
std::string TextAt(pid_t pid, unsigned long address) {
  constexpr std::size_t kLongest = 256;
  constexpr std::chrono::milliseconds kPatience{200};
  const auto text = std::make_shared<std::promise<std::string>>();
  std::future<std::string> answer = text->get_future();
  std::thread([text, pid, address] {
    std::string bytes(kLongest, '\0');
    const iovec here{bytes.data(), bytes.size()};
    // The kernel's interface takes the address of another process as a pointer of ours.
    const iovec there{reinterpret_cast<void*>(address), bytes.size()};
    const ssize_t count = ::process_vm_readv(pid, &here, 1, &there, 1, 0);
    bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    text->set_value(bytes.substr(0, bytes.find('\0')));
  }).detach();
  return answer.wait_for(kPatience) == std::future_status::ready ? answer.get() : "";
}

/// The file that the system call which the thread is in is about; "" when that is not known.
std::string FileOf(const Place& place, const std::string& process, const std::string& task) {
  const auto call = CallOf(task);
  if (!call) return {};
  const auto link = [&process](unsigned long descriptor) {
    constexpr auto kHere = static_cast<unsigned>(AT_FDCWD);
    const auto number = static_cast<unsigned>(descriptor);
    return os::ReadLink(number == kHere ? process + "/cwd"
                                        : fmt::format("{}/fd/{}", process, number))
        .value_or("");
  };
  if (IsOneOf(kOfDescriptor, call->number)) return link(call->arguments[0]);
  if (!IsOneOf(kOfPathAt, call->number)) return {};
  const std::string path = TextAt(place.pid, call->arguments[1]);
  if (path.empty() || path.starts_with('/')) return path;
  return link(call->arguments[0]) + "/" + path;
}

std::string MountText(const os::MountEntry& mount) {
  return fmt::format("{} ({} on {})", mount.mount_point, mount.type, mount.source);
}

/// That holds the file; without one, those that somebody else serves.
std::string MountOf(const std::string& process, const std::string& file) {
  const auto mounts = os::ReadMounts(process + "/mountinfo");
  if (!mounts.ok()) return {};
  const os::MountEntry* best = nullptr;
  std::string remote;
  for (const os::MountEntry& mount : *mounts) {
    const bool inner = best == nullptr || mount.mount_point.size() >= best->mount_point.size();
    if (!file.empty() && os::IsAtOrBelow(file, mount.mount_point) && inner) best = &mount;
    const bool served = mount.type.starts_with("fuse.") || mount.type == "fuse" ||
                        mount.type.starts_with("nfs") || mount.type == "cifs" ||
                        mount.type == "ceph" || mount.type == "9p";
    if (served) remote += (remote.empty() ? "" : ", ") + MountText(mount);
  }
  return best != nullptr ? MountText(*best) : remote;
}

/// For people: blanks in the place of the zeros.
std::string LineOf(const std::string& process) {
  std::string line = os::ReadFile(process + "/cmdline", KiB(256)).value_or("");
  while (!line.empty() && line.back() == '\0') line.pop_back();
  std::replace(line.begin(), line.end(), '\0', ' ');
  constexpr std::size_t kLongest = 200;
  if (line.size() > kLongest) line.replace(kLongest, line.npos, "...");
  return line;
}

struct Task {
  pid_t pid = 0;
  pid_t thread = 0;
  char state = '?';
};

std::vector<Task> TasksOf(pid_t pid, const std::string& proc_root) {
  std::vector<Task> tasks;
  for (const pid_t thread : NumbersIn(fmt::format("{}/{}/task", proc_root, pid))) {
    const auto stat = os::ReadProcStat(thread, fmt::format("{}/{}/task", proc_root, pid));
    if (stat.ok()) tasks.push_back({pid, thread, stat->state});
  }
  return tasks;
}

Place Describe(const Task& task, const std::string& proc_root) {
  const std::string process = fmt::format("{}/{}", proc_root, task.pid);
  const std::string dir = fmt::format("{}/task/{}", process, task.thread);
  Place place{.pid = task.pid, .thread = task.thread, .state = task.state};
  const auto stat = os::ReadProcStat(task.thread, process + "/task");
  if (stat.ok()) place.command = stat->command;
  place.waits_in = os::ReadFile(dir + "/wchan", KiB(4)).value_or("");
  if (place.waits_in == "0") place.waits_in.clear();
  place.stack = StackOf(dir);
  if (place.uninterruptible()) {
    place.file = FileOf(place, process, dir);
    place.mount = MountOf(process, place.file);
  } else {
    // Of one that hangs in the kernel it may keep us waiting, as it is in its memory.
    place.line = LineOf(process);
  }
  return place;
}

bool InState(const Task& task, std::string_view states) {
  return states.find(task.state) != states.npos;
}

}  // namespace

std::optional<Place> PlaceOf(pid_t pid, const std::string& proc_root) {
  std::vector<pid_t> processes = {pid};
  const auto below = os::Descendants(pid, proc_root);
  if (below.ok()) processes.insert(processes.end(), below->begin(), below->end());
  std::vector<Task> tasks;
  for (const pid_t process : processes) {
    const std::vector<Task> own = TasksOf(process, proc_root);
    tasks.insert(tasks.end(), own.begin(), own.end());
  }
  for (const std::string_view states : {"D", "Tt"}) {
    const auto found = std::find_if(tasks.begin(), tasks.end(),
                                    [states](const Task& task) { return InState(task, states); });
    if (found != tasks.end()) return Describe(*found, proc_root);
  }
  // The one that the others wait for: their last child that lives.
  const auto last = std::find_if(tasks.rbegin(), tasks.rend(), [](const Task& task) {
    return task.pid == task.thread && !InState(task, "ZX");
  });
  if (last == tasks.rend()) return std::nullopt;
  return Describe(*last, proc_root);
}

std::optional<Place> PlaceOfThread(pid_t pid, pid_t thread, const std::string& proc_root) {
  for (const Task& task : TasksOf(pid, proc_root)) {
    if (task.thread == thread) return Describe(task, proc_root);
  }
  return std::nullopt;
}

std::vector<Place> SleepersBeside(pid_t pid, const std::string& proc_root) {
  const auto cgroups_of = [&proc_root](pid_t process) {
    return os::ReadFile(fmt::format("{}/{}/cgroup", proc_root, process), KiB(64)).value_or("");
  };
  std::vector<Place> sleepers;
  const std::string cgroups = cgroups_of(pid);
  if (cgroups.empty()) return sleepers;
  for (const pid_t process : NumbersIn(proc_root)) {
    if (cgroups_of(process) != cgroups) continue;
    for (const Task& task : TasksOf(process, proc_root)) {
      if (InState(task, "D")) sleepers.push_back(Describe(task, proc_root));
    }
  }
  return sleepers;
}

std::string PlaceText(const Place& place) {
  std::string text = fmt::format("process {}", place.pid);
  if (place.thread != place.pid) text += fmt::format(", thread {},", place.thread);
  text += fmt::format(" ({})", place.line.empty() ? place.command : place.line);
  switch (place.state) {
    case 'D': text += " is in uninterruptible sleep"; break;
    case 'T':
    case 't': text += " is stopped"; break;
    case 'R': text += " is running"; break;
    case 'Z': text += " has ended"; break;
    default: text += " sleeps"; break;
  }
  if (!place.waits_in.empty()) text += " in " + place.waits_in;
  if (!place.file.empty()) text += ", at " + place.file;
  if (!place.mount.empty()) text += (place.file.empty() ? "; its mounts: " : " on ") + place.mount;
  return text;
}

}  // namespace crisp::ctl::why
