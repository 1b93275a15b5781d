#include "services/netd/core/leftovers.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstddef>
#include <ctime>
#include <string_view>
#include <vector>

#include "libs/base/check.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/pidfd.h"
#include "libs/os/proc_stat.h"
#include "libs/work/pause.h"

namespace crisp::netd {
namespace {

/// "" when it is gone, the kernel's own, or not ours to read.
std::string ReadText(const std::string& proc_root, pid_t pid, const char* file) {
  return os::ReadFile(fmt::format("{}/{}/{}", proc_root, pid, file)).value_or(std::string());
}

/// Whether the NUL-separated environment has the variables with those very values.
bool HasVariables(const std::string& environment, const std::vector<std::string>& variables) {
  const std::string all = std::string(1, '\0') + environment;
  return std::all_of(variables.begin(), variables.end(), [&all](const std::string& variable) {
    // The last one may lack its end, when the process has written over it.
    const std::string begun = std::string(1, '\0') + variable;
    return all.find(begun + '\0') != std::string::npos || all.ends_with(begun);
  });
}

/// Whether a process without an environment may be on its way through execve(2), where for a moment
/// it has neither that nor arguments: who it is shows later.
bool MayBeInExec(const std::string& proc_root, pid_t pid) {
  constexpr pid_t kThreadDaemon = 2;  // parent of the kernel's threads, which never have any
  const Result<os::ProcStat> stat = os::ReadProcStat(pid, proc_root);
  if (!stat.ok() || stat->state == 'Z' || stat->state == 'X') return false;
  if (pid == kThreadDaemon || stat->parent == kThreadDaemon) return false;
  const Result<std::string> arguments = os::ReadFile(fmt::format("{}/{}/cmdline", proc_root, pid));
  return arguments.ok() && arguments->empty();
}

/// Of a process in execve(2) the one that it comes out with; that is waited for only as long as any
/// execve takes.
std::string EnvironmentOf(const CallContext& cc, const std::string& proc_root, pid_t pid) {
  constexpr std::chrono::seconds kPatience(1);
  constexpr std::chrono::milliseconds kRound(1);
  const SteadyTime until = std::chrono::steady_clock::now() + kPatience;
  while (true) {
    std::string environment = ReadText(proc_root, pid, "environ");
    if (!environment.empty()) return environment;
    // Read again: it may have come out of it since.
    if (!MayBeInExec(proc_root, pid)) return ReadText(proc_root, pid, "environ");
    if (std::chrono::steady_clock::now() >= until) {
      log::Warn("a process does not come out of execve", {{"pid", pid}});
      return environment;
    }
    if (!work::Pause(cc, kRound).ok()) return environment;
  }
}

/// How many PID namespaces it is in, from that of `proc_root` down; 0: it is gone.
std::size_t PidNamespaces(const std::string& proc_root, std::string_view pid) {
  constexpr std::string_view kLine = "\nNSpid:";
  const std::string status =
      os::ReadFile(fmt::format("{}/{}/status", proc_root, pid)).value_or(std::string());
  const std::size_t line = status.find(kLine);
  if (line == std::string::npos) return 0;
  const std::size_t begin = line + kLine.size();
  const auto end =
      std::find(status.begin() + static_cast<std::ptrdiff_t>(begin), status.end(), '\n');
  return static_cast<std::size_t>(
      std::count(status.begin() + static_cast<std::ptrdiff_t>(begin), end, '\t'));
}

/// By what costs no wait: its age, and that it is in no container.
class Suspects {
 public:
  Suspects(std::chrono::nanoseconds since, const std::string& proc_root)
      : proc_root_(proc_root), depth_(PidNamespaces(proc_root, "self")) {
    const auto ticks = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
    constexpr std::uint64_t kSecond = 1'000'000'000;
    since_ticks_ = static_cast<std::uint64_t>(since.count()) / (kSecond / ticks);
  }
  bool Has(pid_t pid) const {
    const Result<os::ProcStat> stat = os::ReadProcStat(pid, proc_root_);
    if (!stat.ok() || stat->start_time < since_ticks_) return false;
    return depth_ == 0 || PidNamespaces(proc_root_, std::to_string(pid)) <= depth_;
  }

 private:
  const std::string& proc_root_;
  const std::size_t depth_;
  std::uint64_t since_ticks_ = 0;
};

/// Whether it has ended by then.
Result<bool> EndsBy(const CallContext& cc, const os::PidFd& process, SteadyTime until) {
  while (!CRISP_TRY(process.Exited())) {
    const auto left = until - std::chrono::steady_clock::now();
    if (left <= left.zero()) return false;
    CRISP_TRY(cc.Check().While("wait for a network plugin of an earlier run to end"));
    constexpr std::chrono::milliseconds kRound(100);  // a stop request is seen that soon
    const auto wait = std::min(std::chrono::ceil<std::chrono::milliseconds>(left), kRound);
    pollfd poll = {process.fd(), POLLIN, 0};
    static_cast<void>(::poll(&poll, 1, static_cast<int>(wait.count())) == 0);
  }
  return true;
}

/// One pass over the processes: those that have the variables.
Result<std::vector<os::PidFd>> FindOnce(const CallContext& cc,
                                        const std::vector<std::string>& variables,
                                        const Suspects& suspects, const std::string& proc_root) {
  std::vector<os::PidFd> found;
  for (const std::string& name : CRISP_TRY(os::ListDir(proc_root))) {
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc() || end != name.data() + name.size() || pid == ::getpid()) continue;
    if (!suspects.Has(pid)) continue;
    if (!HasVariables(EnvironmentOf(cc, proc_root, pid), variables)) continue;
    Result<os::PidFd> process = os::PidFd::Open(pid);
    // Looked at again: the number may have passed to another process before it was opened.
    if (process.ok() && HasVariables(ReadText(proc_root, pid, "environ"), variables))
      found.push_back(std::move(process).value());
  }
  return found;
}

}  // namespace

Status EndLeftovers(const CallContext& cc, const std::vector<std::string>& variables,
                    std::chrono::nanoseconds since, std::chrono::nanoseconds grace,
                    const std::string& proc_root) {
  const Suspects suspects(since, proc_root);
  const SteadyTime patience = std::chrono::steady_clock::now() + grace;
  while (true) {
    std::vector<os::PidFd> found = CRISP_TRY(FindOnce(cc, variables, suspects, proc_root));
    if (found.empty()) return Status::Ok();
    for (const os::PidFd& process : found) {
      if (CRISP_TRY(EndsBy(cc, process, patience))) continue;
      log::Warn("network plugin of an earlier run killed", {{"variable", variables.front()}});
      log::IfError("kill a network plugin", process.Signal(SIGKILL));
    }
    // Once more after them: one may have started another behind our back.
    for (const os::PidFd& process : found) {
      const bool ended = CRISP_TRY(EndsBy(cc, process, SteadyTime::max()));
      CRISP_CHECK(ended);
    }
  }
}

std::chrono::nanoseconds SinceBoot() {
  timespec now = {};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

}  // namespace crisp::netd
