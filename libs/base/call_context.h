#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <stop_token>
#include <string>
#include <utility>

#include "libs/base/clock.h"
#include "libs/base/status.h"

namespace crisp {

namespace work {
class Operation;
}

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
  /// What the work is a part of, for those who ask where it stands: work::Stage. May be null.
  const std::shared_ptr<work::Operation>& operation() const { return operation_; }

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
    CallContext within = *this;
    within.deadline_ = std::min(deadline_, std::chrono::steady_clock::now() + timeout);
    return within;
  }
  /// The same request, but its caller's leaving or deadline no longer ends the work: for undo and
  /// for shared flights.
  CallContext Detached(std::chrono::nanoseconds timeout) const {
    CallContext detached = WithStop({});
    detached.deadline_ = std::chrono::steady_clock::now() + timeout;
    return detached;
  }
  /// The same call, told to stop by `stop` and nobody else.
  CallContext WithStop(std::stop_token stop) const {
    CallContext with = *this;
    with.stop_ = std::move(stop);
    return with;
  }
  /// The same call as a part of `operation`.
  CallContext PartOf(std::shared_ptr<work::Operation> operation) const {
    CallContext part = *this;
    part.operation_ = std::move(operation);
    return part;
  }

 private:
  SteadyTime deadline_ = SteadyTime::max();
  std::stop_token stop_;
  std::string request_id_;
  std::shared_ptr<work::Operation> operation_;
};

}  // namespace crisp
