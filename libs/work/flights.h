#pragma once

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/work/pool.h"

namespace crisp::work {

/// Work that outlives its caller and that equal calls share: the first call for a key starts it on
/// a pool thread of its own (Lane::kFlight unless told), later ones join while it is under way, all
/// get its answer. A caller's deadline or stop ends that caller's wait only; the work has a
/// deadline of its own. Once it has ended the key is forgotten: the next call starts anew (what was
/// achieved is then found in the records). Any thread; never call Do from within a flight of the
/// same key.
template <typename K, typename V>
class Flights {
 public:
  /// `timeout` is the deadline of the work itself. The pool must outlive the Flights.
  Flights(Pool& pool, std::chrono::nanoseconds timeout, Lane lane = Lane::kFlight)
      : pool_(pool), timeout_(timeout), lane_(lane), state_(std::make_shared<State>()) {}

  /// `fn` is `Result<V>()` or `Result<V>(const CallContext&)`; the context has the work's deadline
  /// and the first caller's request id. kDeadlineExceeded / kCancelled: this caller's wait ended
  /// (the work goes on); else the work's own outcome, or kResourceExhausted of the pool.
  template <typename F>
  Result<V> Do(const CallContext& cc, const K& key, F fn) {
    std::shared_ptr<Flight> flight;
    bool first = false;
    {
      std::lock_guard lock(state_->mutex);
      auto& slot = state_->flights[key];
      if (slot == nullptr) {
        slot = std::make_shared<Flight>();
        first = true;
      }
      flight = slot;
    }
    if (first) Launch(cc, key, flight, std::move(fn));

    std::unique_lock lock(flight->mutex);
    auto landed = [&flight] { return flight->outcome.has_value(); };
    if (cc.deadline() == SteadyTime::max()) {
      flight->changed.wait(lock, cc.stop(), landed);
    } else {
      flight->changed.wait_until(lock, cc.stop(), cc.deadline(), landed);
    }
    if (flight->outcome.has_value()) return *flight->outcome;
    if (Status over = cc.Check(); !over.ok()) return over;
    return DeadlineExceeded("the deadline of the call has passed");
  }

  /// One for the key is under way now.
  bool Has(const K& key) const {
    std::lock_guard lock(state_->mutex);
    return state_->flights.contains(key);
  }

 private:
  struct Flight {
    std::mutex mutex;
    std::condition_variable_any changed;
    std::optional<Result<V>> outcome;
  };
  struct State {
    std::mutex mutex;
    std::map<K, std::shared_ptr<Flight>> flights;

    void Land(const K& key, const std::shared_ptr<Flight>& flight, Result<V> outcome) {
      {
        std::lock_guard lock(mutex);
        flights.erase(key);
      }
      {
        std::lock_guard lock(flight->mutex);
        flight->outcome.emplace(std::move(outcome));
      }
      flight->changed.notify_all();
    }
  };

  /// An exception that leaves `fn` is our bug, not its callers': they are told at once.
  template <typename F>
  static Result<V> Run(const F& fn, const CallContext& own) {
    try {
      if constexpr (std::is_invocable_v<const F&, const CallContext&>) {
        return fn(own);
      } else {
        return fn();
      }
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& e) {
      return Internal("unexpected exception: {}", e.what());
    }
  }

  template <typename F>
  void Launch(const CallContext& cc, const K& key, const std::shared_ptr<Flight>& flight, F fn) {
    const CallContext own = cc.Detached(timeout_);
    Status submitted = pool_.Submit(
        lane_, own,
        [state = state_, key, flight, own, fn = std::move(fn)] {
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
