#include "libs/process/reaper.h"

#include <sys/wait.h>

#include <cerrno>

namespace crisp::process {
namespace {

/// Long enough for the threads of a program that has just ended, even where they wait for a
/// processor; short enough that nobody wonders about a zombie.
constexpr std::chrono::milliseconds kRest{50};

/// For one that SIGKILL does not end: it hangs in the kernel, for seconds or for good.
constexpr std::chrono::seconds kLookAgain{1};

/// False: it runs still.
bool Reap(pid_t pid) {
  siginfo_t info = {};
  int done = -1;
  do {
    done = ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG);
  } while (done != 0 && errno == EINTR);
  return done != 0 || info.si_pid != 0;
}

}  // namespace

Reaper& Reaper::Instance() {
  static Reaper reaper;
  return reaper;
}

Reaper::~Reaper() {
  thread_ = std::jthread();  // stops and joins
  for (const auto& [due, pid] : due_) Reap(pid);
}

void Reaper::Later(pid_t pid) {
  const std::lock_guard lock(mutex_);
  const auto added = due_.emplace(Clock::now() + kRest, pid);
  if (!thread_.joinable()) {
    thread_ = std::jthread([this](const std::stop_token& stop) { Work(stop); });
  }
  // Otherwise it is awake, or will be, for an earlier one.
  if (added == due_.begin()) changed_.notify_one();
}

void Reaper::Work(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    if (!changed_.wait(lock, stop, [this] { return !due_.empty(); })) return;
    const auto [due, pid] = *due_.begin();
    if (due > Clock::now()) {
      changed_.wait_until(lock, stop, due, [this, due = due] { return due_.begin()->first < due; });
      continue;
    }
    due_.erase(due_.begin());
    lock.unlock();
    const bool gone = Reap(pid);
    lock.lock();
    if (!gone) due_.emplace(Clock::now() + kLookAgain, pid);
  }
}

}  // namespace crisp::process
