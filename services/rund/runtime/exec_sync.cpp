#include "services/rund/runtime/exec_sync.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <stop_token>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/os/pidfd.h"
#include "libs/os/pipe.h"
#include "libs/os/unique_fd.h"
#include "libs/process/command.h"
#include "services/rund/runtime/kill_tree.h"

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

// More than a pipe holds. A command that writes faster than we read must not keep us from its
// deadline.
constexpr int kReadsAtOnce = 16;

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

  /// Reads what is there, if it is not too much for one time; closes at the end.
  void Drain() {
    std::array<char, 65536> buffer{};
    for (int i = 0; i < kReadsAtOnce && fd_.valid(); ++i) {
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

/// One run of the runtime's `exec`, watched by the calling thread.
class Session {
 public:
  Session(process::Child child, std::optional<std::uint64_t> mark, os::UniqueFd out,
          os::UniqueFd err, const ExecScratch& scratch, Bytes limit)
      : child_(std::move(child)),
        tree_{.leader = child_.pid(),
              .helper = os::ProcessId::Of(child_.pid()).value_or(os::ProcessId{child_.pid(), 0}),
              .mark = mark},
        out_(std::move(out), limit),
        err_(std::move(err), limit),
        scratch_(scratch) {}

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
    std::optional<pid_t> pid = CommandPid(scratch_);
    while (!pid && steady_clock::now() < pid_deadline) {
      // It has not come so far; or it never will, since it is ending with an error.
      const Result<bool> ended = Watch(steady_clock::now() + 5ms, {});
      pid = CommandPid(scratch_);
      if (!ended.ok() || *ended) break;
    }
    if (pid) {
      ExecTree command = tree_;
      command.leader = *pid;
      KillTree(command);
    }
    const Result<bool> ended = Watch(steady_clock::now() + kRuntimeGrace, {});
    if (!ended.ok() || !*ended) {
      // What it has started below itself by now would outlive it.
      KillTree(tree_);
    }
    static_cast<void>(child_.WaitOrLeave(kRuntimeGrace).ok());
  }

  Result<int> ExitCode() { return child_.Wait(CallContext::Background(kRuntimeGrace)); }
  bool Started() const { return CommandPid(scratch_).has_value(); }
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
  const ExecTree tree_;  // as long as there is no command
  Collector out_;
  Collector err_;
  const ExecScratch& scratch_;
};

}  // namespace

Result<ExecSyncResult> ExecSync(const CallContext& cc, const ExecSyncArgs& args) {
  CRISP_TRY(cc.Check());
  // The time that the command has includes the wait for its turn and the runtime's own start: the
  // kubelet counts the same way.
  SteadyTime deadline = cc.deadline();
  bool own_timeout = false;
  if (args.timeout > 0s && args.asked_at + args.timeout < deadline) {
    deadline = args.asked_at + args.timeout;
    own_timeout = true;
  }
  if (own_timeout && steady_clock::now() >= deadline) {
    return DeadlineExceeded("the command could not be begun within {} s: too many others run",
                            args.timeout.count());
  }
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
    command.args = {"--tied", scratch.pid_path(), "3"};
    command.args.insert(command.args.end(), words.begin(), words.end());
    command.fds = {{3, report.write.get()}};
  }
  command.args.push_back(args.container_id);
  command.env = process::PlainEnvironment();
  command.out_fd = out.write.get();
  command.err_fd = err.write.get();
  command.new_session = true;
  std::optional<TreeMark> mark(std::in_place);
  process::Child child = CRISP_TRY(process::Spawn(command).While("start {}", command.program));
  const std::optional<std::uint64_t> slack = mark->slack_ns();
  mark.reset();
  out.write.reset();
  err.write.reset();
  report.write.reset();
  Session session(std::move(child), slack, std::move(out.read), std::move(err.read), scratch,
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
    std::array<char, 64> line{};
    const ssize_t size = read(report.read.get(), line.data(), line.size());
    command_code = ReportedExit({line.data(), size > 0 ? static_cast<std::size_t>(size) : 0});
  } else if (session.Started()) {
    command_code = exit_code;
  }
  if (!command_code) {
    return Unknown("exec failed: {}", ExecFailure(scratch, session.TakeErr()));
  }
  return ExecSyncResult{*command_code, session.TakeOut(), session.TakeErr()};
}

}  // namespace crisp::rund
