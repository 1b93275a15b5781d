#include "libs/daemon/rpc_metrics.h"

namespace crisp::daemon {
namespace {

/// Method names come from registered services; a bound all the same.
constexpr std::size_t kMaxMethods = 256;

}  // namespace

RpcMetrics::RpcMetrics(metrics::Registry& registry, std::string_view service)
    : registry_(registry),
      prefix_(fmt::format("crisp_{}_rpc", service)),
      in_flight_(registry.AddGauge(prefix_ + "_in_flight", "Calls under way")) {}

RpcMetrics::Method& RpcMetrics::Find(std::string_view method) {
  while (method.starts_with('/')) method.remove_prefix(1);
  if (const auto found = methods_.find(method); found != methods_.end()) return found->second;
  if (methods_.size() >= kMaxMethods) method = "other";
  return methods_[std::string(method)];
}

void RpcMetrics::OnCallStarted(std::string_view /*method*/) {
  started_.fetch_add(1, std::memory_order_relaxed);
  in_flight_.Add(1);
}

void RpcMetrics::OnCallDone(std::string_view method, Code code, std::chrono::nanoseconds took) {
  in_flight_.Add(-1);
  while (method.starts_with('/')) method.remove_prefix(1);
  std::lock_guard lock(mutex_);
  Method& entry = Find(method);
  if (entry.seconds == nullptr) {
    entry.seconds =
        &registry_.AddHistogram(prefix_ + "_seconds", "Latency of calls", metrics::LatencyBuckets(),
                                {{"method", std::string(method)}});
  }
  metrics::Counter*& calls = entry.calls.at(static_cast<std::size_t>(code));
  if (calls == nullptr) {
    calls = &registry_.AddCounter(prefix_ + "_calls_total", "Calls that ended",
                                  {{"method", std::string(method)}, {"code", CodeName(code)}});
  }
  entry.seconds->Observe(std::chrono::duration<double>(took).count());
  calls->Add();
}

}  // namespace crisp::daemon
