#include "libs/process/command.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <stop_token>

#include <sys/eventfd.h>

#include "libs/base/trace.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/pipe.h"
#include "libs/os/proc_stat.h"
#include "libs/os/unique_fd.h"
#include "libs/process/held.h"
#include "libs/process/reaper.h"
#include "libs/work/operations.h"

namespace crisp::process {
namespace {

constexpr int kFirstFreeFd = 3;
constexpr int kSignalBase = 128;
// From SIGKILL to the end of a program that is not in the middle of an endless system call.
constexpr std::chrono::seconds kKillPatience{2};

class FileActions {
 public:
  FileActions() { ::posix_spawn_file_actions_init(&actions_); }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;
  ~FileActions() { ::posix_spawn_file_actions_destroy(&actions_); }
  posix_spawn_file_actions_t* get() { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_ = {};
};

class SpawnAttributes {
 public:
  SpawnAttributes() { ::posix_spawnattr_init(&attributes_); }
  SpawnAttributes(const SpawnAttributes&) = delete;
  SpawnAttributes& operator=(const SpawnAttributes&) = delete;
  ~SpawnAttributes() { ::posix_spawnattr_destroy(&attributes_); }
  posix_spawnattr_t* get() { return &attributes_; }

 private:
  posix_spawnattr_t attributes_ = {};
};

std::vector<char*> Pointers(const std::string* first, const std::vector<std::string>& rest) {
  std::vector<char*> pointers;
  pointers.reserve(rest.size() + 2);
  // posix_spawn takes char* for history's sake and writes nothing.
  if (first != nullptr) pointers.push_back(const_cast<char*>(first->c_str()));
  for (const std::string& text : rest) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

/// One more than the highest number in the child that a source descriptor of ours could collide
/// with: sources are first copied above it.
int HighestTarget(const Command& command) {
  int highest = kFirstFreeFd - 1;
  for (const auto& [child, ours] : command.fds) highest = std::max(highest, child);
  return highest;
}

/// `in`, `out`, `err`: our descriptors for 0, 1 and 2.
Result<pid_t> Start(const Command& command, int in, int out, int err, bool own_group) {
  // A source whose number is also some target's would be overwritten before it is copied.
  const int floor = HighestTarget(command) + 1;
  std::vector<os::UniqueFd> moved;
  const auto above = [&moved, floor](int fd) -> Result<int> {
    if (fd >= floor) return fd;
    os::UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, floor));
    if (!copy) return Status::Errno(errno, "copy descriptor {}", fd);
    moved.push_back(std::move(copy));
    return moved.back().get();
  };

  FileActions actions;
  std::vector<int> targets;
  const auto give = [&actions, &targets, &above](int fd, int child) -> Status {
    const int source = CRISP_TRY(above(fd));
    const int error = ::posix_spawn_file_actions_adddup2(actions.get(), source, child);
    if (error != 0) return Status::Errno(error, "pass descriptor {}", fd);
    targets.push_back(child);
    return Status::Ok();
  };
  CRISP_TRY(give(in, 0));
  CRISP_TRY(give(out, 1));
  CRISP_TRY(give(err, 2));
  for (const auto& [child, ours] : command.fds) {
    if (child < kFirstFreeFd) return InvalidArgument("descriptor {} is not 3 or more", child);
    CRISP_TRY(give(ours, child));
  }
  // Holes between the targets, then all above: nothing else of ours gets in, O_CLOEXEC or not.
  for (int fd = kFirstFreeFd; fd < floor; ++fd) {
    if (std::find(targets.begin(), targets.end(), fd) == targets.end()) {
      ::posix_spawn_file_actions_addclose(actions.get(), fd);
    }
  }
  if (const int error = ::posix_spawn_file_actions_addclosefrom_np(actions.get(), floor);
      error != 0) {
    return Status::Errno(error, "start {}", command.program);
  }
  if (command.cwd) ::posix_spawn_file_actions_addchdir_np(actions.get(), command.cwd->c_str());

  SpawnAttributes attributes;
  sigset_t none = {};
  ::sigemptyset(&none);
  sigset_t all = {};
  ::sigfillset(&all);
  short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
  if (command.new_session) {
    flags |= POSIX_SPAWN_SETSID;
  } else if (own_group) {
    flags |= POSIX_SPAWN_SETPGROUP;
  }
  ::posix_spawnattr_setsigmask(attributes.get(), &none);
  ::posix_spawnattr_setsigdefault(attributes.get(), &all);
  ::posix_spawnattr_setpgroup(attributes.get(), 0);
  ::posix_spawnattr_setflags(attributes.get(), flags);

  const std::vector<char*> argv = Pointers(&command.program, command.args);
  const std::vector<char*> env = Pointers(nullptr, command.env);
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, command.program.c_str(), actions.get(), attributes.get(),
                                  argv.data(), env.data());
  if (error != 0) return Status::Errno(error, "start {}", command.program);
  return pid;
}

/// exit_code and signal from waitid's answer.
void Explain(const siginfo_t& info, int& exit_code, int& signal) {
  if (info.si_code == CLD_EXITED) {
    exit_code = info.si_status;
    signal = 0;
  } else {
    exit_code = kSignalBase + info.si_status;
    signal = info.si_status;
  }
}

/// True: it had ended. With `more` = WNOWAIT it stays to be reaped, else it is reaped now.
Result<bool> HasEnded(pid_t pid, int more, int& exit_code, int& signal) {
  siginfo_t info = {};
  int done = -1;
  do {
    done = ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | more);
  } while (done != 0 && errno == EINTR);
  if (done != 0) return Status::Errno(errno, "wait for process {}", pid);
  if (info.si_pid == 0) return false;
  Explain(info, exit_code, signal);
  return true;
}

timespec ToTimespec(std::chrono::nanoseconds time) {
  time = std::clamp<std::chrono::nanoseconds>(time, std::chrono::nanoseconds(0),
                                              std::chrono::hours(24));
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
  return {seconds.count(), (time - seconds).count()};
}

/// An eventfd that becomes readable at a stop request.
class StopFd {
 public:
  static Result<os::UniqueFd> Make() {
    os::UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!fd) return Status::Errno(errno, "eventfd");
    return fd;
  }
  struct Ring {
    int fd;
    void operator()() const noexcept {
      const std::uint64_t one = 1;
      static_cast<void>(::write(fd, &one, sizeof(one)) == 0);
    }
  };
};

/// One run of Run(): the pipes, the child and how far they are.
class Runner {
 public:
  Runner(const CallContext& cc, const Command& command, const RunOptions& options)
      : cc_(cc), command_(command), options_(options) {}

  enum class Input { kAtOnce, kLater };
  Status Begin(Input input) {
    CRISP_TRY(cc_.Check().While("run {}", command_.program));
    return StartChild(input);
  }

  void WriteInput() {
    while (written_ < command_.stdin_data.size()) {
      const ssize_t sent = ::write(in_.get(), command_.stdin_data.data() + written_,
                                   command_.stdin_data.size() - written_);
      if (sent < 0) {
        if (errno == EINTR) continue;
        if (errno == EAGAIN) return;
        break;  // EPIPE: it does not want to read; its exit code tells
      }
      written_ += static_cast<std::size_t>(sent);
    }
    in_.reset();
  }

  Result<Output> Wait() {
    const work::ProcessStage stage(cc_, command_.program, pid_);
    os::UniqueFd stop_fd;
    if (cc_.stop().stop_possible()) stop_fd = MakeStopFd();
    const std::stop_callback ring(cc_.stop(), StopFd::Ring{stop_fd.get()});
    stop_fd_ = stop_fd.get();
    const Status waited = WaitLoop();
    if (!ended_) KillAndLeave();
    CRISP_TRY(waited.While("run {}", command_.program));
    if (!ended_by_us_.ok()) return std::move(ended_by_us_).While("{}", command_.program);
    return std::move(output_);
  }

  /// Nobody waits for it: it may hang in the kernel.
  void KillAndLeave() {
    ::kill(-pid_, SIGKILL);
    ::kill(pid_, SIGKILL);
    Reaper::Instance().Later(pid_);
    ended_ = true;
  }

 private:
  using Clock = std::chrono::steady_clock;

  static os::UniqueFd MakeStopFd() {
    Result<os::UniqueFd> fd = StopFd::Make();
    // Without one a stop is only seen at the deadline.
    return fd.ok() ? std::move(fd).value() : os::UniqueFd();
  }

  Status StartChild(Input input) {
    os::UniqueFd null;
    os::UniqueFd child_in;
    os::UniqueFd child_out;
    os::UniqueFd child_err;
    int in = command_.in_fd;
    int out = command_.out_fd;
    int err = command_.err_fd;
    if (in < 0 && command_.stdin_data.empty() && input == Input::kAtOnce) {
      null = CRISP_TRY(os::Open("/dev/null", O_RDONLY));
      in = null.get();
    } else if (in < 0) {
      os::Pipe pipe = CRISP_TRY(os::MakePipe());
      child_in = std::move(pipe.read);
      in_ = std::move(pipe.write);
      in = child_in.get();
      CRISP_TRY(os::SetNonBlocking(in_.get()));
    }
    if (out < 0) {
      os::Pipe pipe = CRISP_TRY(os::MakePipe());
      child_out = std::move(pipe.write);
      out_ = std::move(pipe.read);
      out = child_out.get();
      CRISP_TRY(os::SetNonBlocking(out_.get()));
    }
    if (err < 0) {
      os::Pipe pipe = CRISP_TRY(os::MakePipe());
      child_err = std::move(pipe.write);
      err_ = std::move(pipe.read);
      err = child_err.get();
      CRISP_TRY(os::SetNonBlocking(err_.get()));
    }
    pid_ = CRISP_TRY(Start(command_, in, out, err, true));
    Result<os::PidFd> pidfd = os::PidFd::Open(pid_);
    if (!pidfd.ok()) {
      KillAndLeave();
      return pidfd.status();
    }
    pidfd_ = std::move(pidfd).value();
    // A small input goes at once: one system call, no poll round.
    if (in_ && input == Input::kAtOnce) WriteInput();
    return Status::Ok();
  }

  Status WaitLoop() {
    while (!ended_ || out_ || err_) {
      if (ended_ && Clock::now() >= drain_until_) return Status::Ok();
      enum { kPid, kIn, kOut, kErr, kStop, kCount };
      std::array<pollfd, kCount> polls;
      polls.fill({-1, 0, 0});
      if (!ended_) polls[kPid] = {pidfd_.fd(), POLLIN, 0};
      if (in_) polls[kIn] = {in_.get(), POLLOUT, 0};
      if (out_) polls[kOut] = {out_.get(), POLLIN, 0};
      if (err_) polls[kErr] = {err_.get(), POLLIN, 0};
      if (ended_by_us_.ok()) polls[kStop] = {stop_fd_, POLLIN, 0};
      const timespec timeout = ToTimespec(NextTimeout());
      if (::ppoll(polls.data(), polls.size(), &timeout, nullptr) < 0 && errno != EINTR) {
        return Status::Errno(errno, "poll");
      }
      // Output first: what was written before the end belongs to it.
      if (polls[kOut].revents != 0) CRISP_TRY(ReadOutput(out_, output_.out));
      if (polls[kErr].revents != 0) CRISP_TRY(ReadOutput(err_, output_.err));
      if (polls[kIn].revents != 0) WriteInput();
      if (polls[kPid].revents != 0) CRISP_TRY(OnExit());
      if (!ended_) CRISP_TRY(CheckLimits());
    }
    return Status::Ok();
  }

  std::chrono::nanoseconds NextTimeout() const {
    if (ended_) return drain_until_ - Clock::now();
    if (!ended_by_us_.ok()) return (killed_ ? give_up_at_ : kill_at_) - Clock::now();
    return cc_.Remaining();
  }

  /// kDeadlineExceeded: it outlives SIGKILL.
  Status CheckLimits() {
    if (ended_by_us_.ok()) {
      ended_by_us_ = cc_.Check();
      if (ended_by_us_.ok()) return Status::Ok();
      SignalGroup(SIGTERM);
      kill_at_ = Clock::now() + options_.kill_grace;
    }
    if (!killed_ && Clock::now() >= kill_at_) {
      SignalGroup(SIGKILL);
      killed_ = true;
      give_up_at_ = Clock::now() + kKillPatience;
    }
    if (!killed_ || Clock::now() < give_up_at_) return Status::Ok();
    return DeadlineExceeded("still there {} s after SIGKILL: {}", kKillPatience.count(),
                            os::WhereaboutsOf(pid_));
  }

  /// The child is not reaped yet, so that neither its number nor its group's can be another's.
  void SignalGroup(int signal) const {
    ::kill(-pid_, signal);
    static_cast<void>(pidfd_.Signal(signal).ok());
  }

  Status OnExit() {
    // Its group first, while the number is still held: after a deadline nobody of it stays.
    if (!ended_by_us_.ok()) ::kill(-pid_, SIGKILL);
    const int more = ended_by_us_.ok() ? WNOWAIT : 0;
    ended_ = CRISP_TRY(HasEnded(pid_, more, output_.exit_code, output_.signal));
    if (ended_ && ended_by_us_.ok()) Reaper::Instance().Later(pid_);
    drain_until_ = Clock::now() + (ended_by_us_.ok() ? options_.drain : options_.drain.zero());
    in_.reset();
    return Status::Ok();
  }

  Status ReadOutput(os::UniqueFd& fd, std::string& text) {
    std::array<char, 16384> buffer;
    while (fd) {
      const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
      if (got == 0) fd.reset();
      if (got < 0) {
        if (errno == EINTR) continue;
        if (errno == EAGAIN) return Status::Ok();
        return Status::Errno(errno, "read the output");
      }
      const std::size_t room = options_.max_output.count() - text.size();
      const std::size_t taken = std::min(room, static_cast<std::size_t>(got));
      text.append(buffer.data(), taken);
      if (taken < static_cast<std::size_t>(got)) output_.truncated = true;
      // Back to ppoll now and then: an endless stream must not hide the deadline.
      if (static_cast<std::size_t>(got) < buffer.size() || output_.truncated) return Status::Ok();
    }
    return Status::Ok();
  }

  const CallContext& cc_;
  const Command& command_;
  const RunOptions& options_;
  os::UniqueFd in_;
  os::UniqueFd out_;
  os::UniqueFd err_;
  pid_t pid_ = -1;
  os::PidFd pidfd_;
  int stop_fd_ = -1;
  std::size_t written_ = 0;
  bool ended_ = false;
  bool killed_ = false;
  Status ended_by_us_;  // why we ended it
  Clock::time_point kill_at_ = Clock::time_point::max();
  Clock::time_point give_up_at_ = Clock::time_point::max();
  Clock::time_point drain_until_ = Clock::time_point::max();
  Output output_;
};

/// SIGPIPE of a write to a child's stdin must not end the daemon. Blocked for the thread, and
/// taken back if it came; the daemon's own setting is left alone.
class NoSigpipe {
 public:
  NoSigpipe() {
    ::sigemptyset(&pipe_);
    ::sigaddset(&pipe_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  NoSigpipe(const NoSigpipe&) = delete;
  NoSigpipe& operator=(const NoSigpipe&) = delete;
  ~NoSigpipe() {
    if (::sigismember(&before_, SIGPIPE) == 1) return;
    const timespec now = {0, 0};
    while (::sigtimedwait(&pipe_, nullptr, &now) > 0) {
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t pipe_ = {};
  sigset_t before_ = {};
};

/// What `run` answers of the command, with a span for it and a line in the log.
template <typename F>
Result<Output> Told(const CallContext& cc, const Command& command, F run) {
  const SteadyTime start = std::chrono::steady_clock::now();
  trace::Span span;
  // Not one that nobody asked for: what belongs to no call is no trace.
  if (trace::Current().valid()) {
    span = trace::Span::Begin("run " + command.program, trace::Kind::kInternal, trace::Current());
  }
  Result<Output> output = run();
  if (output.ok()) span.Set("process.exit.code", fmt::format("{}", output->exit_code));
  span.End(output.status());
  // No arguments: they are other people's.
  if (log::Enabled(log::Level::kTrace)) {
    log::Trace("program ended", {{"program", command.program},
                                 {"outcome", output.ok() ? fmt::format("exit {}", output->exit_code)
                                                         : output.status().message()},
                                 {"took", std::chrono::steady_clock::now() - start},
                                 {"request", cc.request_id()}});
  }
  return output;
}

}  // namespace

Result<Output> Run(const CallContext& cc, const Command& command, const RunOptions& options) {
  const NoSigpipe no_sigpipe;
  return Told(cc, command, [&]() -> Result<Output> {
    Runner runner(cc, command, options);
    CRISP_TRY(runner.Begin(Runner::Input::kAtOnce));
    return runner.Wait();
  });
}

struct Held::Impl {
  CallContext cc;
  Command command;
  RunOptions options;
  Runner runner{cc, command, options};
};

Held::Held(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Held::Held(Held&&) noexcept = default;
Held& Held::operator=(Held&& other) noexcept {
  std::swap(impl_, other.impl_);
  return *this;
}
Held::~Held() {
  if (impl_ != nullptr) impl_->runner.KillAndLeave();
}

Result<Held> Held::Start(const CallContext& cc, Command command, const RunOptions& options) {
  auto impl = std::unique_ptr<Impl>(new Impl{cc, std::move(command), options});
  CRISP_TRY(impl->runner.Begin(Runner::Input::kLater));
  return Held(std::move(impl));
}

Result<Output> Held::Finish(std::string input) {
  const NoSigpipe no_sigpipe;
  const std::unique_ptr<Impl> impl = std::move(impl_);
  impl->command.stdin_data = std::move(input);
  return Told(impl->cc, impl->command, [&impl] {
    impl->runner.WriteInput();
    return impl->runner.Wait();
  });
}

Result<Child> Spawn(const Command& command) {
  const NoSigpipe no_sigpipe;
  const os::UniqueFd null = CRISP_TRY(os::Open("/dev/null", O_RDWR));
  int in = command.in_fd >= 0 ? command.in_fd : null.get();
  os::Pipe pipe;
  if (command.in_fd < 0 && !command.stdin_data.empty()) {
    pipe = CRISP_TRY(os::MakePipe());
    in = pipe.read.get();
    // Before the start, so that a full pipe is an error and nobody has to be killed for it.
    CRISP_TRY(os::SetNonBlocking(pipe.write.get()));
    CRISP_TRY(os::WriteAll(pipe.write.get(), command.stdin_data, "stdin"));
    pipe.write.reset();
  }
  const pid_t pid = CRISP_TRY(Start(command, in, command.out_fd >= 0 ? command.out_fd : null.get(),
                                    command.err_fd >= 0 ? command.err_fd : null.get(), false));
  Result<os::PidFd> pidfd = os::PidFd::Open(pid);
  if (!pidfd.ok()) {
    ::kill(pid, SIGKILL);
    Reaper::Instance().Later(pid);
    return pidfd.status();
  }
  return Child(pid, std::move(pidfd).value());
}

Result<std::optional<int>> Child::Reap() {
  if (exit_code_) return exit_code_;
  int code = 0;
  int signal = 0;
  if (CRISP_TRY(HasEnded(pid_, 0, code, signal))) exit_code_ = code;
  return exit_code_;
}

Result<int> Child::Wait(const CallContext& cc) {
  const work::ProcessStage stage(cc, "a program", pid_);
  os::UniqueFd stop_fd;
  if (cc.stop().stop_possible()) stop_fd = CRISP_TRY(StopFd::Make());
  const std::stop_callback ring(cc.stop(), StopFd::Ring{stop_fd.get()});
  while (true) {
    const std::optional<int> code = CRISP_TRY(Reap());
    if (code) return *code;
    CRISP_TRY(cc.Check().While("wait for process {}", pid_));
    std::array<pollfd, 2> polls = {{{pidfd_.fd(), POLLIN, 0}, {stop_fd.get(), POLLIN, 0}}};
    const timespec timeout = ToTimespec(cc.Remaining());
    if (::ppoll(polls.data(), polls.size(), &timeout, nullptr) < 0 && errno != EINTR) {
      return Status::Errno(errno, "poll process {}", pid_);
    }
  }
}

Result<int> Child::WaitOrLeave(std::chrono::nanoseconds patience) {
  Result<int> code = Wait(CallContext::Background(patience));
  if (!code.ok()) Reaper::Instance().Later(pid_);
  return code;
}

std::vector<std::string> PlainEnvironment() {
  return {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
}

}  // namespace crisp::process
