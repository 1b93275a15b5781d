#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

// Names: crisp_<daemon>_<noun>_<unit>, seconds and bytes, `_total` for counters. Labels come from
// closed sets only (no ids, no images). Everything may be used from any thread.
namespace crisp::metrics {

using Labels = std::map<std::string, std::string>;

/// Only grows. Lives as long as its Registry.
class Counter {
 public:
  explicit Counter(prometheus::Counter& impl) : impl_(impl) {}
  void Add(double by = 1);
  double Value() const;

 private:
  prometheus::Counter& impl_;
};

class Gauge {
 public:
  explicit Gauge(prometheus::Gauge& impl) : impl_(impl) {}
  void Set(double value);
  void Add(double by = 1);
  double Value() const;

 private:
  prometheus::Gauge& impl_;
};

class Histogram {
 public:
  explicit Histogram(prometheus::Histogram& impl) : impl_(impl) {}
  void Observe(double value);

 private:
  prometheus::Histogram& impl_;
};

/// 1 ms to about 2 minutes: what our operations take.
std::vector<double> LatencyBuckets();
/// 1 MiB to 16 GiB.
std::vector<double> SizeBuckets();

/// All metrics of one daemon. Add* with a name and labels that are known already answers the same
/// object; a name that is used for two kinds dies (CRISP_CHECK). The references live as long as the
/// Registry.
class Registry {
 public:
  Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;
  ~Registry();

  Counter& AddCounter(const std::string& name, const std::string& help, const Labels& labels = {});
  Gauge& AddGauge(const std::string& name, const std::string& help, const Labels& labels = {});
  /// A gauge whose value is asked for at each Render, on the rendering thread and without any lock
  /// of the registry: memory work only.
  void AddGauge(const std::string& name, const std::string& help, const Labels& labels,
                std::function<double()> value);
  /// The same for a count that somebody else keeps; shown as a counter.
  void AddCounter(const std::string& name, const std::string& help, const Labels& labels,
                  std::function<double()> value);
  Histogram& AddHistogram(const std::string& name, const std::string& help,
                          const std::vector<double>& buckets, const Labels& labels = {});

  /// Prometheus text exposition format 0.0.4.
  std::string Render() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// process_cpu_seconds_total, process_resident_memory_bytes, process_open_fds, process_threads,
/// process_start_time_seconds.
void AddProcessMetrics(Registry& registry);

}  // namespace crisp::metrics
