#pragma once

#include <chrono>
#include <string>

#include "libs/base/status.h"
#include "libs/metrics/registry.h"

namespace crisp::crid {

/// What the front counts, as events. Any thread.
class Metrics {
 public:
  explicit Metrics(metrics::Registry& registry);

  /// A flow ("run_pod", "create_container", ...) has ended.
  void FlowDone(const std::string& flow, const Status& outcome, std::chrono::nanoseconds took);
  /// An undo or a release after the answer failed; the reconcile or the next call repeats it.
  void LeftBehind();
  void Reconciled(std::size_t freed_images, std::size_t freed_networks);
  /// It was not done, or not by both.
  void ReconcileFailed();

 private:
  metrics::Registry& registry_;
  metrics::Counter& left_behind_;
  metrics::Counter& freed_images_;
  metrics::Counter& freed_networks_;
  metrics::Counter& reconcile_errors_;
};

/// Tells `metrics` when the scope ends; say the outcome by Done().
class FlowTimer {
 public:
  FlowTimer(Metrics& metrics, std::string flow)
      : metrics_(metrics), flow_(std::move(flow)), start_(std::chrono::steady_clock::now()) {}
  template <typename T>
  T Done(T outcome) {
    if constexpr (std::is_same_v<T, Status>) {
      metrics_.FlowDone(flow_, outcome, std::chrono::steady_clock::now() - start_);
    } else {
      metrics_.FlowDone(flow_, outcome.status(), std::chrono::steady_clock::now() - start_);
    }
    return outcome;
  }

 private:
  Metrics& metrics_;
  std::string flow_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace crisp::crid
