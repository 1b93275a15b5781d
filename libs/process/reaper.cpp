#include "libs/process/reaper.h"

#include <sys/wait.h>

#include <cerrno>

namespace crisp::process {
namespace {

/// Long enough for the threads of a program that has just ended, even where they wait for a
/// processor; short enough that nobody wonders about a zombie.
constexpr std::chrono::milliseconds kRest{50};

void Reap(pid_t pid) {
  siginfo_t info = {};
  while (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG) != 0 && errno == EINTR) {
  }
}

}  // namespace

Reaper& Reaper::Instance() {
  static Reaper reaper;
  return reaper;
}

Reaper::~Reaper() {
  thread_ = std::jthread();  // stops and joins
  for (const Ended& ended : ended_) Reap(ended.pid);
}

void Reaper::Later(pid_t pid) {
  const std::lock_guard lock(mutex_);
  ended_.push_back({pid, Clock::now() + kRest});
  if (!thread_.joinable()) {
    thread_ = std::jthread([this](const std::stop_token& stop) { Work(stop); });
  }
  // Otherwise it is awake, or will be, for an earlier one.
  if (ended_.size() == 1) changed_.notify_one();
}

void Reaper::Work(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    if (!changed_.wait(lock, stop, [this] { return !ended_.empty(); })) return;
    const Ended oldest = ended_.front();
    if (oldest.due > Clock::now()) {
      changed_.wait_until(lock, stop, oldest.due, [] { return false; });
      continue;
    }
    ended_.pop_front();
    lock.unlock();
    Reap(oldest.pid);
    lock.lock();
  }
}

}  // namespace crisp::process
