#pragma once

#include <chrono>
#include <stop_token>
#include <string>
#include <utility>

#include "libs/base/clock.h"
#include "libs/base/status.h"

namespace crisp {

/// What every function that can block takes first: until when it may, how it is told to stop, and
/// whose request it is.
class CallContext {
 public:
  CallContext() = default;
  CallContext(SteadyTime deadline, std::stop_token stop, std::string request_id)
      : deadline_(deadline), stop_(std::move(stop)), request_id_(std::move(request_id)) {}

  /// For work that nobody waits for: a deadline from now, no stop.
  static CallContext Background(std::chrono::nanoseconds timeout,
                                std::string request_id = "background") {
    return {std::chrono::steady_clock::now() + timeout, {}, std::move(request_id)};
  }

  /// SteadyTime::max() means none.
  SteadyTime deadline() const { return deadline_; }
  const std::stop_token& stop() const { return stop_; }
  const std::string& request_id() const { return request_id_; }

  bool Expired() const {
    return deadline_ != SteadyTime::max() && std::chrono::steady_clock::now() >= deadline_;
  }
  /// Time left, never negative; nanoseconds::max() without a deadline.
  std::chrono::nanoseconds Remaining() const {
    if (deadline_ == SteadyTime::max()) return std::chrono::nanoseconds::max();
    const auto left = deadline_ - std::chrono::steady_clock::now();
    return left > left.zero() ? left : left.zero();
  }
  /// kCancelled after a stop request, kDeadlineExceeded after the deadline, else Ok.
  Status Check() const {
    if (stop_.stop_requested()) return Cancelled("the caller went away");
    if (Expired()) return DeadlineExceeded("the deadline of the call has passed");
    return Status::Ok();
  }

  /// The same call with a deadline that is no later than `timeout` from now.
  CallContext Within(std::chrono::nanoseconds timeout) const {
    const auto limit = std::chrono::steady_clock::now() + timeout;
    return {limit < deadline_ ? limit : deadline_, stop_, request_id_};
  }
  /// The same request, but its caller's leaving or deadline no longer ends the work: for undo and
  /// for shared flights.
  CallContext Detached(std::chrono::nanoseconds timeout) const {
    return {std::chrono::steady_clock::now() + timeout, {}, request_id_};
  }

 private:
  SteadyTime deadline_ = SteadyTime::max();
  std::stop_token stop_;
  std::string request_id_;
};

}  // namespace crisp
