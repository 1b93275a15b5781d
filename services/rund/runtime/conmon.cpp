#include "services/rund/runtime/conmon.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/pidfd.h"
#include "libs/os/pipe.h"
#include "libs/os/unique_fd.h"
#include "libs/process/command.h"
#include "libs/work/operations.h"

namespace crisp::rund {
namespace {

using os::UniqueFd;

constexpr int kSyncFd = 3;
constexpr int kStartFd = 4;
constexpr int kHeldFd = 5;
constexpr std::chrono::seconds kReopenTime{2};
// To the control fifo, as are window sizes: "1 HEIGHT WIDTH".
constexpr std::string_view kReopenOrder = "2 0 0\n";

int PollTimeout(const CallContext& cc) {
  if (cc.deadline() == SteadyTime::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(cc.Remaining()).count();
  return static_cast<int>(std::min<std::int64_t>(left, 60'000));
}

// One line, or what came before the end of the stream.
Result<std::string> ReadLine(const CallContext& cc, int fd) {
  std::string line;
  char buffer[4096];
  while (line.find('\n') == std::string::npos && line.size() < (std::size_t{1} << 20U)) {
    pollfd poller{.fd = fd, .events = POLLIN};
    const int ready = poll(&poller, 1, PollTimeout(cc));
    if (ready < 0 && errno != EINTR) return Status::FromErrno(errno, "poll");
    if (ready <= 0) {
      CRISP_TRY(cc.Check());
      continue;
    }
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0 && errno != EINTR) return Status::FromErrno(errno, "read conmon's sync pipe");
    if (n == 0) break;
    if (n > 0) line.append(buffer, static_cast<std::size_t>(n));
  }
  return line;
}

std::optional<pid_t> ReadPidFile(const std::string& path) {
  const auto text = os::ReadFile(path, KiB(1));
  if (!text.ok()) return std::nullopt;
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), pid);
  if (error != std::errc() || pid <= 0) return std::nullopt;
  return pid;
}

process::Command CommandOf(const OciRuntime& runtime, const MonitorArgs& args) {
  process::Command command;
  command.program = args.conmon;
  command.args = {
      // What the sync line looks like.
      "--api-version", "1",
      // Who it is for, and who runs it.
      "-c", args.id.str(), "-u", args.id.str(), "-r", runtime.info().path, "-b", args.bundle,
      // Where everything goes.
      "-p", args.bundle + "/pid", "-P", args.bundle + "/conmon.pid", "-l",
      args.log_path.empty() ? "null" : "k8s-file:" + args.log_path, "--exit-dir", args.exit_dir,
      "--persist-dir", args.bundle, "--full-attach", "--no-sync-log", "--log-level", "warning"};
  for (const std::string& option : runtime.options()) {
    command.args.insert(command.args.end(), {"--runtime-arg", option});
  }
  // Its stderr is the container's: what it remarks on its way would be in the container's log. Why
  // it failed is said on both.
  for (const std::string& option : {std::string("--log"), args.bundle + "/runtime.log"}) {
    command.args.insert(command.args.end(), {"--runtime-arg", option});
  }
  if (!args.journal_name.empty() && !args.log_path.empty()) {
    command.args.insert(command.args.end(), {"-l", "journald", "-n", args.journal_name});
  }
  if (!args.restore_images.empty()) {
    command.args.insert(command.args.end(), {"--restore", args.restore_images});
    for (const std::string& option : args.restore_options) {
      command.args.insert(command.args.end(), {"--runtime-opt", option});
    }
  }
  if (args.systemd_cgroup) command.args.emplace_back("-s");
  if (args.tty) command.args.emplace_back("-t");
  if (args.stdin_open) {
    command.args.emplace_back("-i");
    if (!args.stdin_once) command.args.emplace_back("--leave-stdin-open");
  }
  // It tells of an OOM kill by a file in its working directory too.
  command.cwd = args.bundle;
  command.env = process::PlainEnvironment();
  // It lives as long as the container: GLib's own allocator would cost each of them 12 KiB more.
  command.env.emplace_back("G_SLICE=always-malloc");
  command.env.insert(command.env.end(), runtime.monitor_env().begin(), runtime.monitor_env().end());
  command.env.push_back(fmt::format("_OCI_SYNCPIPE={}", kSyncFd));
  command.env.push_back(fmt::format("_OCI_STARTPIPE={}", kStartFd));
  return command;
}

// The monitor is stopped first: it stays the reaper of what it started, so that nothing escapes
// while its children are killed.
void KillTree(pid_t monitor) {
  kill(monitor, SIGSTOP);
  for (int round = 0; round < 50; ++round) {
    const auto below = os::Descendants(monitor);
    if (!below.ok()) break;
    bool any = false;
    for (const pid_t pid : *below) {
      const auto process = os::ReadProcStat(pid);
      if (!process.ok() || process->state == 'Z') continue;
      any = true;
      kill(pid, SIGKILL);
    }
    if (!any) break;
    poll(nullptr, 0, 1);
  }
  kill(monitor, SIGKILL);
}

// How many of our containers, one inside the other, hold a process with this /proc/<pid>/cgroup.
std::size_t ContainersAround(std::string_view cgroups) {
  constexpr std::string_view kName = "/crisp-";
  constexpr std::size_t kIdSize = 64;
  std::size_t most = 0;
  while (!cgroups.empty()) {
    const std::string_view line = cgroups.substr(0, cgroups.find('\n'));
    cgroups.remove_prefix(std::min(line.size() + 1, cgroups.size()));
    std::size_t count = 0;
    for (auto at = line.find(kName); at != line.npos; at = line.find(kName, at + 1)) {
      if (IsFullId(line.substr(at + kName.size(), kIdSize))) ++count;
    }
    most = std::max(most, count);
  }
  return most;
}

// All whose command line holds these two arguments, one after the other. Those in containers are
// passed over: the command line is in a process's memory, and one that hangs in the kernel may keep
// everybody from that.
std::vector<pid_t> ProcessesWith(const std::pair<std::string, std::string>& arguments) {
  std::string needle(1, '\0');
  needle += arguments.first;
  needle += '\0';
  needle += arguments.second;
  needle += '\0';
  std::vector<pid_t> found;
  const auto names = os::ListDir("/proc");
  if (!names.ok()) return found;
  const auto around = [](const std::string& process) {
    return ContainersAround(os::ReadFile("/proc/" + process + "/cgroup", KiB(64)).value_or(""));
  };
  const std::size_t around_us = around("self");
  for (const std::string& name : *names) {
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc() || end != name.data() + name.size()) continue;
    if (around(name) > around_us) continue;
    const auto text = os::ReadFile("/proc/" + name + "/cmdline", KiB(256));
    if (text.ok() && text->find(needle) != std::string::npos) found.push_back(pid);
  }
  return found;
}

// A descriptor of `process` is open on that very file.
bool HasOpen(pid_t process, const struct stat& file) {
  const std::string dir = fmt::format("/proc/{}/fd", process);
  const auto names = os::ListDir(dir);
  if (!names.ok()) return false;
  return std::any_of(names->begin(), names->end(), [&](const std::string& name) {
    struct stat open_file {};
    return stat((dir + "/" + name).c_str(), &open_file) == 0 && open_file.st_ino == file.st_ino &&
           open_file.st_dev == file.st_dev;
  });
}

std::optional<struct stat> FileAt(const std::string& path) {
  struct stat file {};
  if (lstat(path.c_str(), &file) != 0) return std::nullopt;
  return file;
}

// The file that conmon will open and rename. When it cannot, on a full disk for instance, it ends,
// and the container with it: so it finds it made, and with the mode that readers expect.
Status MakeFresh(const std::string& fresh) {
  constexpr mode_t kMode = S_IRUSR | S_IWUSR | S_IRGRP;
  const UniqueFd file = CRISP_TRY(os::Open(fresh, O_WRONLY | O_CREAT | O_NOFOLLOW, kMode));
  if (fchmod(file.get(), kMode) != 0) return Status::Errno(errno, "chmod {}", fresh);
  return Status::Ok();
}

// conmon opens and renames the new file, and tells nobody. Until the call's end: kDeadlineExceeded.
// kFailedPrecondition: conmon has ended and has not made it.
Status AwaitReopened(const CallContext& cc, const std::string& log_path,
                     const os::ProcessId& monitor, const std::optional<struct stat>& before) {
  while (true) {
    const auto file = FileAt(log_path);
    if (file && HasOpen(monitor.pid, *file)) return Status::Ok();
    if (!os::Alive(monitor)) {
      // It may have made the file before it ended: then the last lines are in there.
      const auto last = FileAt(log_path);
      const bool made =
          last && !(before && last->st_dev == before->st_dev && last->st_ino == before->st_ino);
      return made ? Status::Ok() : FailedPrecondition("the container ended");
    }
    CRISP_TRY(cc.Check().While("wait for conmon to open {}", log_path));
    poll(nullptr, 0, 1);
  }
}

// Takes the order to reopen out of conmon's control fifo again. False: it is not in there, conmon
// has it. Of the window sizes that wait in there as well the last one stays, and the first, which
// may be the end of a line that conmon has begun to read.
bool TakeOrderBack(const std::string& ctl_path, int writer) {
  const UniqueFd reader(open(ctl_path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  std::string waiting(std::size_t{64} << 10U, '\0');  // all that a fifo holds
  const ssize_t size = read(reader.get(), waiting.data(), waiting.size());
  waiting.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  bool taken = false;
  std::string first, last;
  for (std::string_view rest = waiting; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n') + 1);
    if (line.empty()) break;
    rest.remove_prefix(line.size());
    if (line == kReopenOrder) {
      taken = true;
    } else {
      (first.empty() ? first : last) = line;
    }
  }
  const Status back = os::WriteAll(writer, first + last, "conmon's control fifo");
  log::IfError("give a window's size back to conmon", back);
  return taken;
}

}  // namespace

Result<pid_t> ParseSyncLine(std::string_view line) {
  auto parsed = json::Parse(line);
  if (!parsed.ok()) return Internal("conmon answered something unknown: {}", line);
  const auto data = json::GetInt(*parsed, "data");
  if (!data.ok()) return Internal("conmon answered something unknown: {}", line);
  if (*data > 0) return static_cast<pid_t>(*data);
  return Internal("{}", RuntimeWords(json::OptString(*parsed, "message").value_or("")));
}

Result<Monitored> CreateMonitored(const CallContext& cc, const OciRuntime& runtime,
                                  const MonitorArgs& args) {
  os::Pipe sync = CRISP_TRY(os::MakePipe());
  os::Pipe start = CRISP_TRY(os::MakePipe());
  // conmon waits for this byte before it starts the runtime: it is there before conmon is.
  CRISP_TRY(os::WriteAll(start.write.get(), "1", "conmon's start pipe"));
  const std::string errors_path = args.bundle + "/conmon.err";
  // A file, not a pipe: conmon's first process says why it cannot start there.
  UniqueFd errors =
      CRISP_TRY(os::Open(errors_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, S_IRUSR | S_IWUSR));

  process::Command command = CommandOf(runtime, args);
  command.fds = {{kSyncFd, sync.write.get()}, {kStartFd, start.read.get()}};
  // conmon ends when nobody is there to hear its word, which is fine for what a create has made,
  // but not for what runs already: it holds the other end, too.
  if (!args.restore_images.empty()) command.fds.emplace_back(kHeldFd, sync.read.get());
  command.err_fd = errors.get();
  const std::string verb = args.restore_images.empty() ? "create" : "restore";
  const work::Stage stage(cc, fmt::format("runtime {}: {}", runtime.info().name, verb));
  process::Child child = CRISP_TRY(process::Spawn(command).While("start conmon"));
  Cleanup kill_it([bundle = args.bundle] { KillMonitors(bundle); });
  sync.write.reset();
  start.read.reset();
  start.write.reset();

  // The first process forks conmon proper, writes its number and goes. Reaped in any case.
  static_cast<void>(child.WaitOrLeave(std::chrono::seconds(5)).ok());
  const pid_t started = ReadPidFile(args.bundle + "/conmon.pid").value_or(child.pid());
  const work::ProcessStage process(cc, args.conmon, started);
  auto line = ReadLine(cc, sync.read.get());
  if (!line.ok()) return std::move(line).status().While("{} {}", runtime.info().name, verb);
  if (line->empty()) {
    const auto words = os::ReadFile(errors_path, KiB(64));
    return Internal("conmon ended before the container was created: {}",
                    words.ok() ? RuntimeWords(*words) : "it gave no reason");
  }
  Monitored monitored;
  monitored.init.pid = CRISP_TRY(ParseSyncLine(*line));
  // Whoever ended already leaves a number without a start time, which no process ever matches.
  if (auto init = os::ProcessId::Of(monitored.init.pid); init.ok()) monitored.init = *init;
  if (const auto pid = ReadPidFile(args.bundle + "/conmon.pid")) {
    monitored.monitor.pid = *pid;
    if (auto monitor = os::ProcessId::Of(*pid); monitor.ok()) monitored.monitor = *monitor;
  }
  kill_it.Dismiss();
  return monitored;
}

void KillMonitors(const std::string& bundle) {
  // "-b <bundle>", as CommandOf writes it.
  KillAllWith({"-b", bundle});
}

void KillAllWith(const std::pair<std::string, std::string>& arguments) {
  for (const pid_t pid : ProcessesWith(arguments)) KillTree(pid);
}

void KillMonitor(const os::ProcessId& monitor) {
  if (os::Alive(monitor)) KillTree(monitor.pid);
}

Status AwaitStarts(const CallContext& cc, const ContainerId& id) {
  // Of an earlier run: no more of them come.
  return AwaitAllWith(cc, {"start", id.str()}, "start");
}

Status AwaitAllWith(const CallContext& cc, const std::pair<std::string, std::string>& arguments,
                    const std::string& what) {
  for (const pid_t pid : ProcessesWith(arguments)) {
    const auto process = os::PidFd::Open(pid);
    if (!process.ok()) continue;
    const work::Stage stage(cc, fmt::format("wait for a {} that is under way", what));
    const work::ProcessStage waits(cc, what, pid);
    pollfd poller{.fd = process->fd(), .events = POLLIN};
    while (poll(&poller, 1, PollTimeout(cc)) <= 0) {
      CRISP_TRY(cc.Check().While("wait for a {} that is under way", what));
    }
  }
  return Status::Ok();
}

Result<std::optional<Monitored>> FindRestored(const CallContext& cc, const std::string& bundle) {
  // conmon starts it first thing; then there is a runtime until it has an answer.
  while (!os::Exists(bundle + "/pid") && !ProcessesWith({"-b", bundle}).empty()) {
    CRISP_TRY(cc.Check().While("wait for a restore that is under way"));
    CRISP_TRY(AwaitAllWith(cc, {"--bundle", bundle}, "restore"));
    poll(nullptr, 0, 10);
  }
  CRISP_TRY(AwaitAllWith(cc, {"--bundle", bundle}, "restore"));
  const auto init = ReadPidFile(bundle + "/pid");
  const auto monitor = ReadPidFile(bundle + "/conmon.pid");
  if (!init || !monitor) return std::optional<Monitored>();
  Monitored found;
  found.init.pid = *init;
  found.monitor.pid = *monitor;
  if (auto process = os::ProcessId::Of(*monitor); process.ok()) found.monitor = *process;
  // Who has ended already has no start time, as in CreateMonitored.
  if (auto process = os::ProcessId::Of(*init); process.ok()) found.init = *process;
  return std::optional<Monitored>(found);
}

Status ReopenLog(const CallContext& cc, const std::string& bundle, const std::string& log_path,
                 const os::ProcessId& monitor) {
  if (!os::Alive(monitor)) return FailedPrecondition("the monitor of the container has ended");
  // Not moved away: it goes on being written. (conmon would replace it with an empty one.)
  const auto before = FileAt(log_path);  // what is there instead of it, if anything
  if (before && HasOpen(monitor.pid, *before)) return Status::Ok();
  const std::string fresh = log_path + ".tmp";
  CRISP_TRY(MakeFresh(fresh));
  // Only while conmon cannot be about to rename it.
  Cleanup tidy([&fresh] { os::RemoveFile(fresh).ok(); });
  const std::string ctl_path = bundle + "/ctl";
  UniqueFd ctl(open(ctl_path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  if (!ctl) return FailedPrecondition("the monitor of the container does not listen");
  CRISP_TRY(os::WriteAll(ctl.get(), kReopenOrder, "conmon's control fifo"));
  // It takes well under a millisecond; or conmon is held up, for who knows how long.
  Status done = AwaitReopened(cc.Within(kReopenTime), log_path, monitor, before);
  if (done.ok() || done.code() == Code::kFailedPrecondition) return done;
  // An order that stays there is obeyed whenever conmon goes on, and by then whoever has our answer
  // has put the log back: conmon would put an empty one in its place.
  if (TakeOrderBack(ctl_path, ctl.get())) {
    return Unavailable("the container's monitor does not open {}: it is held up", log_path);
  }
  tidy.Dismiss();
  done = AwaitReopened(cc, log_path, monitor, before);
  if (done.code() == Code::kFailedPrecondition) CRISP_TRY(os::RemoveFile(fresh));
  return done;
}

Result<UniqueFd> ConnectMonitor(const std::string& bundle) {
  const UniqueFd dir = CRISP_TRY(os::Open(bundle, O_PATH | O_DIRECTORY));
  const std::string path = fmt::format("/proc/self/fd/{}/attach", dir.get());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Status::Errno(errno, "socket");
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
    return fd;
  if (errno == EAGAIN) return Unavailable("the container's monitor does not answer");
  return Status::Errno(errno, "connect to the container's monitor");
}

}  // namespace crisp::rund
