#include "services/netd/core/readiness.h"

#include <algorithm>
#include <utility>

#include "libs/base/try.h"
#include "libs/log/log.h"

namespace crisp::netd {
namespace {

constexpr std::chrono::milliseconds kRound(100);  // a caller's deadline is seen that late

}  // namespace

void Readiness::Assume(const std::string& network) {
  const std::scoped_lock lock(mutex_);
  last_network_ = network;
  failing_since_ = clock_.Now();
}

Readiness::Seen Readiness::LookNow(const CallContext& cc) const {
  Seen seen;
  Result<std::shared_ptr<const ConfList>> source = conf_.Current();
  if (!source.ok()) {
    seen.problem = source.status();
    return seen;
  }
  seen.source = *std::move(source);
  // Shared with others: one caller's leaving does not end it.
  Result<ConfList> ready = plugins_.Ready(cc.Detached(options_.look_timeout), *seen.source);
  if (ready.ok()) {
    seen.list = std::make_shared<const ConfList>(*std::move(ready));
  } else {
    seen.problem = Unavailable("{}", ready.status().message());
  }
  return seen;
}

void Readiness::Remember(Seen seen) {
  const bool was_ready = seen_.list != nullptr;
  const bool changed = seen_.look == 0 || was_ready != (seen.list != nullptr) ||
                       seen_.problem.message() != seen.problem.message();
  if (seen.list != nullptr) {
    if (changed) {
      log::Info("network is ready",
                {{"network", seen.list->name}, {"cni", seen.list->cni_version}});
    }
    last_network_ = seen.list->name;
  } else {
    if (was_ready) failing_since_ = clock_.Now();
    if (changed) log::Warn("network is not ready", {{"error", seen.problem}});
  }
  seen_ = std::move(seen);
}

Status Readiness::Look(const CallContext& cc) {
  std::unique_lock lock(mutex_);
  const std::uint64_t before = looks_started_;
  while (looking_) {
    CRISP_TRY(cc.Check().While("wait for the network's status"));
    changed_.wait_for(lock, cc.stop(), kRound, [this] { return !looking_; });
    // One that began after our call has seen what we came for.
    if (!looking_ && seen_.look > before) return seen_.problem;
  }
  looking_ = true;
  const std::uint64_t number = ++looks_started_;
  lock.unlock();
  Seen seen = LookNow(cc);
  seen.look = number;
  lock.lock();
  Status problem = seen.problem;
  Remember(std::move(seen));
  looking_ = false;
  changed_.notify_all();
  return problem;
}

NetworkState Readiness::State(const CallContext& cc) {
  std::unique_lock lock(mutex_);
  if (seen_.look == 0 && !looking_) {
    lock.unlock();
    static_cast<void>(Look(cc).ok());
    lock.lock();
  }
  // The first look is somebody else's. Until it has ended nobody knows.
  while (seen_.look == 0 && looking_ && cc.Check().ok()) {
    changed_.wait_for(lock, cc.stop(), kRound, [this] { return !looking_; });
  }
  return StateLocked();
}

NetworkState Readiness::StateLocked() const {
  NetworkState state;
  if (seen_.list != nullptr) {
    state.ready = true;
    state.network = seen_.list->name;
    return state;
  }
  state.message = seen_.look == 0 ? "the network is being looked at" : seen_.problem.message();
  state.in_grace = !last_network_.empty() && clock_.Now() - failing_since_ < options_.grace;
  state.ready = state.in_grace;
  if (state.ready) state.network = last_network_;
  return state;
}

Result<std::shared_ptr<const ConfList>> Readiness::Wait(const CallContext& cc,
                                                        std::chrono::nanoseconds patience) {
  constexpr std::chrono::milliseconds kPause(500);
  const CallContext limited = cc.Within(patience);
  {
    const Result<std::shared_ptr<const ConfList>> source = conf_.Current();
    const std::scoped_lock lock(mutex_);
    if (seen_.list != nullptr && source.ok() && *source == seen_.source) return seen_.list;
  }
  while (true) {
    std::uint64_t wakes = 0;
    {
      const std::scoped_lock lock(mutex_);
      wakes = wakes_;
    }
    const Status looked = Look(cc);
    std::unique_lock lock(mutex_);
    if (looked.ok() && seen_.list != nullptr) return seen_.list;
    if (!limited.Check().ok()) {
      CRISP_TRY(cc.Check());
      return looked.ok() ? seen_.problem : looked;
    }
    changed_.wait_for(lock, limited.stop(),
                      std::min<std::chrono::nanoseconds>(kPause, limited.Remaining()),
                      [this, wakes] { return wakes_ != wakes; });
  }
}

void Readiness::Wake() {
  {
    const std::scoped_lock lock(mutex_);
    ++wakes_;
  }
  changed_.notify_all();
}

}  // namespace crisp::netd
