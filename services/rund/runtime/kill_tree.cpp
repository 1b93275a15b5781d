#include "services/rund/runtime/kill_tree.h"

#include <poll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <csignal>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "libs/base/clock.h"
#include "libs/os/cgroup.h"
#include "libs/os/files.h"
#include "libs/os/pidfd.h"

namespace crisp::rund {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

// Another one for each exec; an older one that has the same again is told by its start.
constexpr unsigned kMarks = 8191;
constexpr int kRounds = 32;
constexpr auto kDying = 2s;

std::optional<std::uint64_t> ParseNumber(std::string_view text) {
  std::uint64_t number = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), number).ec != std::errc()) {
    return std::nullopt;
  }
  return number;
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
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (const auto pid = ParseNumber(name)) pids.push_back(static_cast<pid_t>(*pid));
  }
  return pids;
}

/// "" when it has none of its own.
std::string CgroupOf(pid_t pid) {
  for (const char* controller : {"pids", ""}) {
    Result<std::string> path = os::CgroupOf(pid, controller);
    if (path.ok() && *path != "/") return *std::move(path);
  }
  return "";
}

class Killer {
 public:
  explicit Killer(const ExecTree& tree)
      : tree_(tree),
        sessions_{tree.leader, SessionOf(tree.leader)},
        own_session_(SessionOf(0)),
        cgroup_(CgroupOf(tree.leader)) {
    if (tree.helper.pid > 0) sessions_.insert(tree.helper.pid);
  }

  void Run() {
    Stop(tree_.leader);
    for (int round = 0; round < kRounds; ++round) {
      if (!StopMore()) break;
    }
    for (const auto& [pid, process] : known_) static_cast<void>(process.Signal(SIGKILL).ok());
    // Whoever asked for the kill looks for what is left at once.
    const SteadyTime deadline = steady_clock::now() + kDying;
    for (const auto& [pid, process] : known_) {
      pollfd watched = {process.fd(), POLLIN, 0};
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now());
      static_cast<void>(poll(&watched, 1, static_cast<int>(std::max(left, 0ms).count())));
    }
  }

 private:
  bool Stop(pid_t pid) {
    if (known_.contains(pid)) return false;
    Result<os::PidFd> process = os::PidFd::Open(pid);
    if (!process.ok()) return false;
    static_cast<void>(process->Signal(SIGSTOP).ok());
    known_.emplace(pid, std::move(process).value());
    return true;
  }

  bool StopMore() {
    bool found = false;
    std::vector<pid_t> candidates;
    for (const auto& [pid, process] : known_) candidates.push_back(pid);
    for (const pid_t pid : AllProcesses()) {
      if (pid != tree_.helper.pid && (InSession(pid) || IsMarked(pid))) candidates.push_back(pid);
    }
    for (const pid_t pid : candidates) {
      found = Stop(pid) || found;
      const Result<std::vector<pid_t>> children = os::Descendants(pid);
      if (!children.ok()) continue;
      for (const pid_t child : *children) found = Stop(child) || found;
    }
    return found;
  }

  bool InSession(pid_t pid) const {
    const pid_t session = SessionOf(pid);
    return session > 0 && session != own_session_ && sessions_.contains(session);
  }

  bool IsMarked(pid_t pid) const {
    if (!tree_.mark || cgroup_.empty()) return false;
    const auto text = os::ReadFile("/proc/" + std::to_string(pid) + "/timerslack_ns");
    if (!text.ok() || ParseNumber(*text) != tree_.mark) return false;
    const auto process = os::ProcessId::Of(pid);
    return process.ok() && process->start_time >= tree_.helper.start_time &&
           os::IsAtOrBelow(CgroupOf(pid), cgroup_);
  }

  const ExecTree& tree_;
  std::set<pid_t> sessions_;
  const pid_t own_session_;
  const std::string cgroup_;
  std::map<pid_t, os::PidFd> known_;
};

}  // namespace

TreeMark::TreeMark() : before_(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)) {
  static std::atomic<unsigned> count{0};
  if (before_ <= 0) return;
  const auto slack = static_cast<unsigned long>(before_) + 1 + count++ % kMarks;
  if (prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0) == 0) slack_ns_ = slack;
}

TreeMark::~TreeMark() {
  if (slack_ns_) prctl(PR_SET_TIMERSLACK, static_cast<unsigned long>(before_), 0, 0, 0);
}

void KillTree(const ExecTree& tree) { Killer(tree).Run(); }

}  // namespace crisp::rund
