#include "services/rund/runtime/exec_sync.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <map>
#include <optional>
#include <set>
#include <stop_token>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/os/pidfd.h"
#include "libs/os/pipe.h"
#include "libs/os/proc_stat.h"
#include "libs/os/unique_fd.h"
#include "libs/process/command.h"

namespace crisp::rund {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

// Output that a background child of the command still holds open is not worth waiting for.
constexpr auto kDrain = 100ms;
// From the kill of the command to the end of the runtime's own process, which only has to notice.
constexpr auto kRuntimeGrace = 2s;
// How long a runtime that we want to stop may take to write the pid that we need for it.
constexpr auto kPidFileWait = 2s;

/// A pipe whose read end never blocks us.
Result<os::Pipe> MakeReadPipe() {
  os::Pipe pipe = CRISP_TRY(os::MakePipe());
  CRISP_TRY(os::SetNonBlocking(pipe.read.get()));
  return pipe;
}

/// One stream of the command: what fits is kept, the rest is read and thrown away, so that the
/// command never blocks on us.
class Collector {
 public:
  Collector(os::UniqueFd fd, Bytes limit) : fd_(std::move(fd)), limit_(limit.count()) {}

  int fd() const { return fd_.get(); }
  bool open() const { return fd_.valid(); }
  std::string Take() { return std::move(text_); }

  /// Reads what is there; closes at the end.
  void Drain() {
    std::array<char, 65536> buffer{};
    while (fd_.valid()) {
      const ssize_t n = read(fd_.get(), buffer.data(), buffer.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n <= 0) {
        fd_.reset();
        return;
      }
      const std::size_t room = limit_ - text_.size();
      text_.append(buffer.data(), std::min(room, static_cast<std::size_t>(n)));
    }
  }

 private:
  os::UniqueFd fd_;
  std::size_t limit_;
  std::string text_;
};

std::optional<pid_t> ReadPid(const std::string& path) {
  const Result<std::string> text = os::ReadFile(path, KiB(1));
  if (!text.ok()) return std::nullopt;
  pid_t pid = 0;
  if (std::from_chars(text->data(), text->data() + text->size(), pid).ec != std::errc() ||
      pid <= 1) {
    return std::nullopt;
  }
  return pid;
}

/// The session of a process, 0 when it is gone.
pid_t SessionOf(pid_t pid) {
  const pid_t session = getsid(pid);
  return session < 0 ? 0 : session;
}

std::vector<pid_t> AllProcesses() {
  std::vector<pid_t> pids;
  const Result<std::vector<std::string>> names = os::ListDir("/proc");
  if (!names.ok()) return pids;
  for (const std::string& name : *names) {
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error == std::errc() && end == name.data() + name.size()) pids.push_back(pid);
  }
  return pids;
}

/// SIGKILL to the command and to all that it started: its descendants, and the orphans among them,
/// which are still in its session. That one began below the session that we gave to the runtime, so
/// nothing else of the container is in it. All are stopped first, until nobody new appears: a
/// process that forks faster than we look would get away otherwise.
void KillTree(pid_t leader, pid_t runtime) {
  constexpr int kRounds = 32;
  std::map<pid_t, os::PidFd> known;
  const auto stop = [&known](pid_t pid) {
    if (known.contains(pid)) return false;
    Result<os::PidFd> process = os::PidFd::Open(pid);
    if (!process.ok()) return false;
    static_cast<void>(process->Signal(SIGSTOP).ok());
    known.emplace(pid, std::move(process).value());
    return true;
  };
  const std::set<pid_t> sessions = {runtime, leader, SessionOf(leader)};
  const pid_t own_session = SessionOf(0);
  stop(leader);
  for (int round = 0; round < kRounds; ++round) {
    bool found = false;
    std::vector<pid_t> candidates;
    for (const auto& [pid, process] : known) candidates.push_back(pid);
    for (const pid_t pid : AllProcesses()) {
      const pid_t session = SessionOf(pid);
      const bool ours = session > 0 && session != own_session && sessions.contains(session);
      if (ours && pid != runtime) candidates.push_back(pid);
    }
    for (const pid_t pid : candidates) {
      found = stop(pid) || found;
      const Result<std::vector<pid_t>> children = os::Descendants(pid);
      if (!children.ok()) continue;
      for (const pid_t child : *children) found = stop(child) || found;
    }
    if (!found) break;
  }
  for (const auto& [pid, process] : known) static_cast<void>(process.Signal(SIGKILL).ok());
  // Whoever asks for the timeout looks for what is left of the command at once.
  const SteadyTime deadline = steady_clock::now() + kRuntimeGrace;
  for (const auto& [pid, process] : known) {
    pollfd watched = {process.fd(), POLLIN, 0};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now());
    static_cast<void>(poll(&watched, 1, static_cast<int>(std::max(left, 0ms).count())));
  }
}

/// One run of the runtime's `exec`, watched by the calling thread.
class Session {
 public:
  Session(process::Child child, os::UniqueFd out, os::UniqueFd err, std::string pid_file,
          Bytes limit)
      : child_(std::move(child)),
        out_(std::move(out), limit),
        err_(std::move(err), limit),
        pid_file_(std::move(pid_file)) {}

  /// True when the started program has ended; false at `deadline` or when `stop` was requested.
  Result<bool> Watch(SteadyTime deadline, const std::stop_token& stop) {
    const os::UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake.valid()) return Status::Errno(errno, "eventfd");
    const int wake_fd = wake.get();
    const std::stop_callback on_stop(stop, [wake_fd] {
      const std::uint64_t one = 1;
      static_cast<void>(write(wake_fd, &one, sizeof one) == sizeof one);
    });
    while (!stop.stop_requested()) {
      if (CRISP_TRY(child_.pidfd().Exited())) return true;
      if (steady_clock::now() >= deadline) return false;
      CRISP_TRY(Poll(deadline, {wake_fd, child_.pidfd().fd()}));
    }
    return false;
  }

  /// What is left in the pipes after the end; not longer than `limit`.
  Status Finish(std::chrono::nanoseconds limit) {
    const SteadyTime deadline = steady_clock::now() + limit;
    out_.Drain();
    err_.Drain();
    while ((out_.open() || err_.open()) && steady_clock::now() < deadline) {
      CRISP_TRY(Poll(deadline, {}));
    }
    return Status::Ok();
  }

  /// Kills the command and all below it, then sees the runtime's process off.
  void Kill() {
    const SteadyTime pid_deadline = steady_clock::now() + kPidFileWait;
    std::optional<pid_t> pid = ReadPid(pid_file_);
    while (!pid && steady_clock::now() < pid_deadline) {
      // It has not come so far; or it never will, since it is ending with an error.
      const Result<bool> ended = Watch(steady_clock::now() + 5ms, {});
      pid = ReadPid(pid_file_);
      if (!ended.ok() || *ended) break;
    }
    if (pid) KillTree(*pid, child_.pid());
    const Result<bool> ended = Watch(steady_clock::now() + kRuntimeGrace, {});
    if (!ended.ok() || !*ended) {
      // What it has started below itself by now would outlive it.
      KillTree(child_.pid(), child_.pid());
    }
    static_cast<void>(child_.Wait(CallContext::Background(kRuntimeGrace)).ok());
  }

  Result<int> ExitCode() { return child_.Wait(CallContext::Background(kRuntimeGrace)); }
  bool Started() const { return ReadPid(pid_file_).has_value(); }
  std::string TakeOut() { return out_.Take(); }
  std::string TakeErr() { return err_.Take(); }

 private:
  /// Until something happens to the pipes or to `others`, or the deadline.
  Status Poll(SteadyTime deadline, const std::vector<int>& others) {
    // poll(2) passes over negative descriptors.
    std::vector<pollfd> watched = {{out_.fd(), POLLIN, 0}, {err_.fd(), POLLIN, 0}};
    for (const int fd : others) watched.push_back({fd, POLLIN, 0});
    timespec timeout{};
    timespec* limit = nullptr;
    if (deadline != SteadyTime::max()) {
      const auto left = std::max<std::chrono::nanoseconds>(deadline - steady_clock::now(), 0ns);
      timeout.tv_sec = static_cast<time_t>(std::chrono::floor<std::chrono::seconds>(left).count());
      timeout.tv_nsec = static_cast<long>((left % 1s).count());
      limit = &timeout;
    }
    if (ppoll(watched.data(), watched.size(), limit, nullptr) < 0 && errno != EINTR) {
      return Status::Errno(errno, "ppoll");
    }
    out_.Drain();
    err_.Drain();
    return Status::Ok();
  }

  process::Child child_;
  Collector out_;
  Collector err_;
  std::string pid_file_;
};

}  // namespace

/// What crisp-exec reports: "exit N", the command's exit code; nothing when the runtime failed.
std::optional<int> ReadReport(int fd) {
  std::array<char, 64> line{};
  const ssize_t size = read(fd, line.data(), line.size());
  constexpr std::string_view kExit = "exit ";
  const std::string_view text(line.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  int code = 0;
  if (!text.starts_with(kExit) ||
      std::from_chars(text.data() + kExit.size(), text.data() + text.size(), code).ec !=
          std::errc()) {
    return std::nullopt;
  }
  return code;
}

Result<ExecSyncResult> ExecSync(const CallContext& cc, const ExecSyncArgs& args) {
  CRISP_TRY(cc.Check());
  const ExecScratch scratch = CRISP_TRY(ExecScratch::Create(args));
  os::Pipe out = CRISP_TRY(MakeReadPipe());
  os::Pipe err = CRISP_TRY(MakeReadPipe());
  process::Command command;
  os::Pipe report = CRISP_TRY(MakeReadPipe());
  std::vector<std::string> words = ExecWords(args, scratch, !args.helper.empty());
  if (args.helper.empty()) {
    command.program = args.runtime;
    command.args.assign(words.begin() + 1, words.end());
  } else {
    command.program = args.helper;
    command.args = {scratch.pid_path(), "3"};
    command.args.insert(command.args.end(), words.begin(), words.end());
    command.fds = {{3, report.write.get()}};
  }
  command.args.push_back(args.container_id);
  command.env = process::PlainEnvironment();
  command.out_fd = out.write.get();
  command.err_fd = err.write.get();
  command.new_session = true;
  // The time that the command has includes the runtime's own start: the kubelet counts the same
  // way.
  SteadyTime deadline = cc.deadline();
  bool own_timeout = false;
  if (args.timeout > 0s && steady_clock::now() + args.timeout < deadline) {
    deadline = steady_clock::now() + args.timeout;
    own_timeout = true;
  }
  process::Child child = CRISP_TRY(process::Spawn(command).While("start {}", command.program));
  out.write.reset();
  err.write.reset();
  report.write.reset();
  Session session(std::move(child), std::move(out.read), std::move(err.read), scratch.pid_path(),
                  args.max_output);

  const Result<bool> ended = session.Watch(deadline, cc.stop());
  if (!ended.ok() || !*ended) {
    session.Kill();
    if (!ended.ok()) return ended.status();
    if (cc.stop().stop_requested()) return Cancelled("the caller of ExecSync went away");
    if (own_timeout) {
      return DeadlineExceeded("the command did not end within {} s and was killed",
                              args.timeout.count());
    }
    return DeadlineExceeded("the command did not end before the call's deadline and was killed");
  }
  CRISP_TRY(session.Finish(kDrain));
  const int exit_code = CRISP_TRY(session.ExitCode());
  std::optional<int> command_code;
  if (!args.helper.empty()) {
    command_code = ReadReport(report.read.get());
  } else if (session.Started()) {
    command_code = exit_code;
  }
  if (!command_code) {
    return Unknown("exec failed: {}", ExecFailure(scratch, session.TakeErr()));
  }
  return ExecSyncResult{*command_code, session.TakeOut(), session.TakeErr()};
}

}  // namespace crisp::rund
