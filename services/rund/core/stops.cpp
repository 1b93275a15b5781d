#include "services/rund/core/stops.h"

#include <algorithm>
#include <utility>

#include "libs/log/log.h"
#include "libs/os/files.h"
#include "services/rund/core/parts.h"
#include "services/rund/core/status.h"

namespace crisp::rund {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

// From SIGKILL to the exit file: processes in the middle of a system call, a slow disk under the
// log.
constexpr seconds kKillPatience{10};
constexpr seconds kMonitorPatience{5};
constexpr seconds kStuckPeriod{30};

Status Closed() { return Unavailable("rund is ending: the stop goes on when it is back"); }

Status StillThere(const ContainerRecord& container) {
  const pid_t pid = container.init().pid();
  const auto stat = os::ReadProcStat(pid);
  if (!stat.ok()) return DeadlineExceeded("container {} does not end", container.id());
  const std::string where =
      os::ReadFile(fmt::format("/proc/{}/wchan", pid), KiB(4)).value_or("an unknown place");
  return DeadlineExceeded(
      "container {} is still there {} s after SIGKILL: process {} ({}) is in state {} in {}",
      container.id(), kKillPatience.count(), pid, stat->command, stat->state, where);
}

}  // namespace

Stops::Stops(State& state, Clock& clock, Actions actions)
    : state_(state), clock_(clock), actions_(std::move(actions)) {
  state_.OnContainerChange([this](const std::string& id) { Touch(id); });
  thread_ = std::thread([this] { Serve(); });
}

Stops::~Stops() {
  state_.OnContainerChange(nullptr);
  Close();
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Stops::Await(const ContainerId& id, Done done) {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) {
      Stop& stop = stops_[id.str()];
      // Somebody asks again: it gets its time again.
      if (stop.stage == Stage::kStuck) stop.stage = Stage::kGrace;
      if (done) stop.waiters.push_back(std::exchange(done, nullptr));
      touched_.insert(id.str());
    }
  }
  changed_.notify_all();
  if (done) done(Closed());
}

void Stops::Close() {
  std::vector<Done> tell;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    for (auto& [id, stop] : stops_) {
      for (Done& done : stop.waiters) tell.push_back(std::move(done));
    }
    stops_.clear();
    touched_.clear();
  }
  for (const Done& done : tell) done(Closed());
}

Stops::Counts Stops::counts() const {
  const std::lock_guard lock(mutex_);
  Counts counts;
  counts.stopping = stops_.size();
  for (const auto& [id, stop] : stops_) counts.stuck += stop.stage == Stage::kStuck ? 1 : 0;
  return counts;
}

void Stops::Touch(const std::string& id) {
  {
    const std::lock_guard lock(mutex_);
    if (!stops_.contains(id)) return;
    touched_.insert(id);
  }
  changed_.notify_all();
}

void Stops::Serve() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    SteadyTime next = SteadyTime::max();
    const SteadyTime now = clock_.Now();
    for (const auto& [id, stop] : stops_) {
      if (stop.next <= now) touched_.insert(id);
      next = std::min(next, stop.next);
    }
    if (touched_.empty()) {
      // Bounded, because no clock waits until the end of time.
      next = std::min(next, now + std::chrono::hours(24));
      clock_.WaitUntil(lock, changed_, next, [this] { return ending_ || !touched_.empty(); });
      continue;
    }
    const std::set<std::string> due = std::exchange(touched_, {});
    lock.unlock();
    for (const std::string& id : due) Advance(id);
    lock.lock();
  }
}

void Stops::Advance(const std::string& id) {
  const ContainerRef container = state_.FindContainer(ContainerId(id));
  Step step;
  {
    const std::lock_guard lock(mutex_);
    const auto found = stops_.find(id);
    if (found == stops_.end()) return;
    step = Decide(container.get(), found->second);
    if (step.ended) stops_.erase(found);
  }
  if (!step.outcome.ok()) log::Error("container does not end", {{"error", step.outcome}});
  for (const Done& done : step.tell) done(step.outcome);
  if (step.act == Step::Act::kKill) actions_.kill(ContainerId(id));
  if (step.act == Step::Act::kKillMonitor) actions_.kill_monitor(ContainerId(id));
}

Stops::Step Stops::Decide(const ContainerRecord* container, Stop& stop) {
  Step step;
  const SteadyTime now = clock_.Now();
  if (!Runs(container)) {
    step.ended = true;
    step.tell = std::move(stop.waiters);
    return step;
  }
  if (stop.stage == Stage::kGrace) {
    const nanoseconds left(container->stop_kill_at() - clock_.Wall().time_since_epoch().count());
    if (left.count() > 0) {
      stop.next = now + left;
      return step;
    }
    stop.stage = Stage::kKilled;
    stop.next = now + kKillPatience;
    step.act = Step::Act::kKill;
    return step;
  }
  if (stop.next > now) return step;  // a change of the record that says nothing of its end
  switch (stop.stage) {
    case Stage::kKilled:
      if (!os::Alive(ProcessOf(container->init()))) {
        stop.stage = Stage::kMonitorKilled;
        stop.next = now + kMonitorPatience;
        step.act = Step::Act::kKillMonitor;
        return step;
      }
      [[fallthrough]];
    case Stage::kMonitorKilled:
      step.outcome = StillThere(*container);
      step.tell = std::exchange(stop.waiters, {});
      stop.stage = Stage::kStuck;
      stop.next = now + kStuckPeriod;
      return step;
    default:
      // Whatever held it may have let go, and something else have come.
      stop.next = now + kStuckPeriod;
      step.act = Step::Act::kKill;
      return step;
  }
}

}  // namespace crisp::rund
