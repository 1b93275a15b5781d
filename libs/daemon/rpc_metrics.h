#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "libs/metrics/registry.h"
#include "libs/rpc/server.h"

namespace crisp::daemon {

/// Counts what a daemon's server does: calls by method and code, their latency, those in flight.
class RpcMetrics final : public rpc::CallObserver {
 public:
  RpcMetrics(metrics::Registry& registry, std::string_view service);

  void OnCallStarted(std::string_view method) override;
  void OnCallDone(std::string_view method, Code code, std::chrono::nanoseconds took) override;
  /// Calls that have started, ever.
  std::uint64_t calls() const { return started_.load(std::memory_order_relaxed); }

 private:
  struct Method {
    metrics::Histogram* seconds = nullptr;
    std::array<metrics::Counter*, 17> calls{};  // by code
  };
  Method& Find(std::string_view method);

  metrics::Registry& registry_;
  const std::string prefix_;
  metrics::Gauge& in_flight_;
  std::atomic<std::uint64_t> started_{0};
  std::mutex mutex_;
  std::map<std::string, Method, std::less<>> methods_;
};

}  // namespace crisp::daemon
