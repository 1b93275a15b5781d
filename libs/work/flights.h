#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <type_traits>
#include <utility>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/work/operations.h"
#include "libs/work/pool.h"
#include "libs/work/tell_exceptions.h"
#include "libs/work/wait.h"

namespace crisp::work {

/// Work that outlives its caller and that equal calls share: the first call for a key starts it on
/// a pool thread of its own (Lane::kFlight unless told), later ones join while it is under way, all
/// get its answer. A caller's deadline or stop ends that caller's wait only; the work has a
/// deadline of its own, and the owner may stop what everybody has left (StopAbandoned). Once it has
/// ended the key is forgotten: the next call starts anew (what was achieved is then found in the
/// records). Any thread; never call Do from within a flight of the same key.
template <typename K, typename V>
class Flights {
 public:
  /// `timeout` is the deadline of the work itself. The pool must outlive the Flights.
  Flights(Pool& pool, std::chrono::nanoseconds timeout, Lane lane = Lane::kFlight)
      : pool_(pool), timeout_(timeout), lane_(lane), state_(std::make_shared<State>()) {}

  /// `fn` is `Result<V>()` or `Result<V>(const CallContext&)`; the context has the work's deadline
  /// and stop, and the first caller's request id. kDeadlineExceeded / kCancelled: this caller's
  /// wait ended (the work goes on); else the work's own outcome, or kResourceExhausted of the pool.
  template <typename F>
  Result<V> Do(const CallContext& cc, const K& key, F fn) {
    std::shared_ptr<Flight> flight;
    std::shared_ptr<const Operation> same;  // that of the call which we join
    bool first = false;
    {
      std::lock_guard lock(state_->mutex);
      auto& slot = state_->flights[key];
      // One that is told to stop has no answer for us.
      if (slot == nullptr || slot->stop.stop_requested()) {
        slot = std::make_shared<Flight>();
        slot->operation = cc.operation();
        first = true;
      } else {
        same = slot->operation.lock();
      }
      flight = slot;
      ++flight->callers;
      flight->abandoned.reset();
    }
    if (first) Launch(cc, key, flight, std::move(fn));
    std::optional<Stage> joining;
    if (!first) joining.emplace(Stage::OfSameCall(cc, std::move(same)));

    std::unique_lock lock(flight->mutex);
    WaitUnlessOver(cc, lock, flight->changed, [&flight] { return flight->outcome.has_value(); });
    const std::optional<Result<V>> outcome = flight->outcome;
    lock.unlock();
    state_->Leave(*flight, cc);
    if (outcome.has_value()) return *outcome;
    if (Status over = cc.Check(); !over.ok()) return over;
    return DeadlineExceeded("the deadline of the call has passed");
  }

  /// One for the key is under way now.
  bool Has(const K& key) const {
    std::lock_guard lock(state_->mutex);
    return state_->flights.contains(key);
  }

  /// Asks those flights to stop whose last caller went away at least so long ago, before its own
  /// deadline: one whose deadline came will try again. Their keys. Memory work, plus what waits for
  /// the flights' stop.
  std::vector<K> StopAbandoned(std::chrono::nanoseconds after) {
    const SteadyTime before = std::chrono::steady_clock::now() - after;
    std::vector<K> keys;
    std::vector<std::shared_ptr<Flight>> stopped;
    {
      std::lock_guard lock(state_->mutex);
      for (const auto& [key, flight] : state_->flights) {
        if (!flight->abandoned || *flight->abandoned > before) continue;
        flight->abandoned.reset();
        keys.push_back(key);
        stopped.push_back(flight);
      }
    }
    for (const auto& flight : stopped) flight->stop.request_stop();
    return keys;
  }

 private:
  struct Flight {
    std::mutex mutex;
    std::condition_variable_any changed;
    std::optional<Result<V>> outcome;
    std::stop_source stop;
    // Guarded by the state's mutex.
    int callers = 0;
    std::optional<SteadyTime> abandoned;  // when the last caller went away
    std::weak_ptr<const Operation> operation;
  };
  struct State {
    std::mutex mutex;
    std::map<K, std::shared_ptr<Flight>> flights;

    void Leave(Flight& flight, const CallContext& cc) {
      // A call whose deadline comes is cancelled at about that time.
      constexpr auto kDeadline = std::chrono::seconds(1);
      std::lock_guard lock(mutex);
      if (--flight.callers > 0) return;
      if (cc.stop().stop_requested() && cc.Remaining() > kDeadline)
        flight.abandoned = std::chrono::steady_clock::now();
    }

    void Land(const K& key, const std::shared_ptr<Flight>& flight, Result<V> outcome) {
      {
        std::lock_guard lock(mutex);
        const auto found = flights.find(key);
        if (found != flights.end() && found->second == flight) flights.erase(found);
      }
      {
        std::lock_guard lock(flight->mutex);
        flight->outcome.emplace(std::move(outcome));
      }
      flight->changed.notify_all();
    }
  };

  template <typename F>
  static Result<V> Run(const F& fn, const CallContext& own) {
    return TellExceptions([&fn, &own]() -> Result<V> {
      if constexpr (std::is_invocable_v<const F&, const CallContext&>) {
        return fn(own);
      } else {
        return fn();
      }
    });
  }

  template <typename F>
  void Launch(const CallContext& cc, const K& key, const std::shared_ptr<Flight>& flight, F fn) {
    const CallContext own = cc.Detached(timeout_).WithStop(flight->stop.get_token());
    if (own.operation() != nullptr) own.operation()->Queued(LaneName(lane_));
    Status submitted = pool_.Submit(
        lane_, own,
        [state = state_, key, flight, own, fn = std::move(fn)] {
          if (own.operation() != nullptr) own.operation()->Runs();
          state->Land(key, flight, Run(fn, own));
        },
        [state = state_, key, flight](const Status& why) { state->Land(key, flight, why); });
    if (!submitted.ok()) state_->Land(key, flight, std::move(submitted));
  }

  Pool& pool_;
  std::chrono::nanoseconds timeout_;
  Lane lane_;
  std::shared_ptr<State> state_;
};

}  // namespace crisp::work
