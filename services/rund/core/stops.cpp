#include "services/rund/core/stops.h"

#include <algorithm>
#include <memory>
#include <stop_token>
#include <utility>

#include "libs/log/log.h"
#include "libs/os/proc_stat.h"
#include "libs/work/operations.h"
#include "services/rund/core/parts.h"
#include "services/rund/core/status.h"

namespace crisp::rund {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr seconds kStuckPeriod{30};
// Until what could not be asked for is asked for again.
constexpr nanoseconds kAskAgain = std::chrono::milliseconds(100);

Status Closed() { return Unavailable("rund is ending: the stop goes on when it is back"); }

Status StillThere(const ContainerRecord& container) {
  return DeadlineExceeded("container {} is still there {} s after SIGKILL: {}", container.id(),
                          Stops::kKillPatience.count(), os::WhereaboutsOf(container.init().pid()));
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

SteadyTime Stops::KillTimeOf(const ContainerRecord& container, const Clock& clock) {
  if (container.has_stop_kill_at_steady()) {
    return SteadyTime(nanoseconds(container.stop_kill_at_steady()));
  }
  return clock.Now() +
         nanoseconds(container.stop_kill_at() - clock.Wall().time_since_epoch().count());
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

Status Stops::AwaitAll(const CallContext& cc, const std::vector<ContainerId>& ids) {
  struct Answers {
    std::mutex mutex;
    std::condition_variable_any changed;
    std::size_t open;
    Status first;
  };
  const work::Stage stage(cc, fmt::format("wait for the end of {} containers", ids.size()));
  const auto answers = std::make_shared<Answers>();  // may be told after we have gone
  answers->open = ids.size();
  for (const ContainerId& id : ids) {
    Await(id, [answers](const Status& status) {
      {
        const std::lock_guard lock(answers->mutex);
        if (answers->first.ok()) answers->first = status;
        --answers->open;
      }
      answers->changed.notify_all();
    });
  }
  const std::stop_callback woken(cc.stop(), [answers] {
    const std::lock_guard lock(answers->mutex);
    answers->changed.notify_all();
  });
  std::unique_lock lock(answers->mutex);
  clock_.WaitUntil(lock, answers->changed, cc.deadline(),
                   [&] { return answers->open == 0 || cc.stop().stop_requested(); });
  if (answers->open == 0) return answers->first;
  if (cc.stop().stop_requested()) return Cancelled("the caller went away; the stops go on");
  return DeadlineExceeded("{} containers have not ended in time", answers->open);
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

std::vector<Stops::Stuck> Stops::stuck() const {
  const std::lock_guard lock(mutex_);
  std::vector<Stuck> all;
  for (const auto& [id, stop] : stops_) {
    if (stop.stuck_since) all.push_back({ContainerId(id), *stop.stuck_since});
  }
  return all;
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
  if (!Runs(container.get())) return Tell(id, Status::Ok(), /*ended=*/true);
  const std::optional<Stage> stage = StageDue(id, *container);
  if (!stage) return;
  Step step = Take(*stage, *container);
  {
    const std::lock_guard lock(mutex_);
    const auto found = stops_.find(id);
    if (found == stops_.end()) return;
    // Somebody asked again meanwhile: touched, so it is looked at again.
    if (found->second.stage != *stage) return;
    found->second.stage = step.stage;
    found->second.next = clock_.Now() + step.after;
    if (step.stage == Stage::kStuck && !found->second.stuck_since) {
      found->second.stuck_since = clock_.Now();
    }
  }
  if (step.outcome.ok()) return;
  log::Error("container does not end", {{"error", step.outcome}});
  Tell(id, step.outcome, /*ended=*/false);
}

void Stops::Tell(const std::string& id, const Status& outcome, bool ended) {
  std::vector<Done> waiters;
  {
    const std::lock_guard lock(mutex_);
    const auto found = stops_.find(id);
    if (found == stops_.end()) return;
    waiters = std::exchange(found->second.waiters, {});
    if (ended) stops_.erase(found);
  }
  for (const Done& done : waiters) done(outcome);
}

std::optional<Stops::Stage> Stops::StageDue(const std::string& id,
                                            const ContainerRecord& container) {
  const std::lock_guard lock(mutex_);
  const auto found = stops_.find(id);
  if (found == stops_.end()) return std::nullopt;
  Stop& stop = found->second;
  const SteadyTime now = clock_.Now();
  if (stop.stage == Stage::kGrace) {
    stop.next = KillTimeOf(container, clock_);
    if (stop.next <= now) return stop.stage;
    return std::nullopt;
  }
  // A change of the record that says nothing of its end.
  if (stop.next > now) return std::nullopt;
  return stop.stage;
}

Stops::Step Stops::Take(Stage stage, const ContainerRecord& container) const {
  const ContainerId id(container.id());
  if (stage == Stage::kGrace) {
    if (actions_.kill(id)) return {Stage::kKilled, kKillPatience, {}};
    return {stage, kAskAgain, {}};
  }
  const bool gone = !os::Alive(ProcessOf(container.init()));
  switch (stage) {
    case Stage::kKilled:
      if (!gone) break;
      if (actions_.kill_monitor(id)) return {Stage::kMonitorKilled, kMonitorPatience, {}};
      return {stage, kAskAgain, {}};
    case Stage::kStuck:
      // Whatever held it may have let go, and something else have come.
      if (gone ? actions_.kill_monitor(id) : actions_.kill(id)) return {stage, kStuckPeriod, {}};
      return {stage, kAskAgain, {}};
    default: break;
  }
  return {Stage::kStuck, kStuckPeriod, StillThere(container)};
}

}  // namespace crisp::rund
