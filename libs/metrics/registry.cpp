#include "libs/metrics/registry.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <mutex>
#include <typeindex>

#include "libs/base/check.h"
#include "libs/base/units.h"

namespace crisp::metrics {

void Counter::Add(double by) { impl_.Increment(by); }
double Counter::Value() const { return impl_.Value(); }
void Gauge::Set(double value) { impl_.Set(value); }
void Gauge::Add(double by) { impl_.Increment(by); }
double Gauge::Value() const { return impl_.Value(); }
void Histogram::Observe(double value) { impl_.Observe(value); }

std::vector<double> LatencyBuckets() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120};
}

std::vector<double> SizeBuckets() {
  std::vector<double> buckets;
  for (std::uint64_t size = MiB(1).count(); size <= GiB(16).count(); size *= 4) {
    buckets.push_back(static_cast<double>(size));
  }
  return buckets;
}

namespace {

/// A value that is asked for when it is rendered.
struct Asked {
  std::string help;
  prometheus::MetricType type;
  std::vector<std::pair<Labels, std::function<double()>>> values;
};

/// prometheus-cpp's counter cannot be set, its families want a type of their own: asked values are
/// put beside what it collects.
prometheus::MetricFamily Collect(const std::string& name, const Asked& asked) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = asked.help;
  family.type = asked.type;
  for (const auto& [labels, value] : asked.values) {
    prometheus::ClientMetric metric;
    for (const auto& [key, text] : labels) metric.label.push_back({key, text});
    (asked.type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value) =
        value();
    family.metric.push_back(std::move(metric));
  }
  return family;
}

}  // namespace

struct Registry::Impl {
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};
  mutable std::mutex mutex;
  std::map<std::string, std::type_index> kinds;
  std::map<std::pair<std::string, Labels>, std::unique_ptr<Counter>> counters;
  std::map<std::pair<std::string, Labels>, std::unique_ptr<Gauge>> gauges;
  std::map<std::pair<std::string, Labels>, std::unique_ptr<Histogram>> histograms;
  std::map<std::string, Asked> asked;

  /// A name is of one kind for ever.
  template <typename Kind>
  void Claim(const std::string& name) {
    const auto [entry, fresh] = kinds.try_emplace(name, typeid(Kind));
    CRISP_CHECK(entry->second == typeid(Kind));
  }

  void AddAsked(const std::string& name, const std::string& help, const Labels& labels,
                prometheus::MetricType type, std::function<double()> value) {
    std::lock_guard lock(mutex);
    Claim<Asked>(name);
    Asked& entry = asked.try_emplace(name, Asked{help, type, {}}).first->second;
    CRISP_CHECK(entry.type == type);
    entry.values.emplace_back(labels, std::move(value));
  }
};

Registry::Registry() : impl_(std::make_unique<Impl>()) {}
Registry::~Registry() = default;

Counter& Registry::AddCounter(const std::string& name, const std::string& help,
                              const Labels& labels) {
  std::lock_guard lock(impl_->mutex);
  impl_->Claim<Counter>(name);
  auto& slot = impl_->counters[{name, labels}];
  if (slot == nullptr) {
    auto& family = prometheus::BuildCounter().Name(name).Help(help).Register(impl_->registry);
    slot = std::make_unique<Counter>(family.Add(labels));
  }
  return *slot;
}

Gauge& Registry::AddGauge(const std::string& name, const std::string& help, const Labels& labels) {
  std::lock_guard lock(impl_->mutex);
  impl_->Claim<Gauge>(name);
  auto& slot = impl_->gauges[{name, labels}];
  if (slot == nullptr) {
    auto& family = prometheus::BuildGauge().Name(name).Help(help).Register(impl_->registry);
    slot = std::make_unique<Gauge>(family.Add(labels));
  }
  return *slot;
}

void Registry::AddGauge(const std::string& name, const std::string& help, const Labels& labels,
                        std::function<double()> value) {
  impl_->AddAsked(name, help, labels, prometheus::MetricType::Gauge, std::move(value));
}

void Registry::AddCounter(const std::string& name, const std::string& help, const Labels& labels,
                          std::function<double()> value) {
  impl_->AddAsked(name, help, labels, prometheus::MetricType::Counter, std::move(value));
}

Histogram& Registry::AddHistogram(const std::string& name, const std::string& help,
                                  const std::vector<double>& buckets, const Labels& labels) {
  std::lock_guard lock(impl_->mutex);
  impl_->Claim<Histogram>(name);
  auto& slot = impl_->histograms[{name, labels}];
  if (slot == nullptr) {
    auto& family = prometheus::BuildHistogram().Name(name).Help(help).Register(impl_->registry);
    slot = std::make_unique<Histogram>(family.Add(labels, buckets));
  }
  return *slot;
}

std::string Registry::Render() const {
  std::vector<prometheus::MetricFamily> families = impl_->registry.Collect();
  // A value may take locks under which others add metrics: it is asked for outside of ours.
  std::map<std::string, Asked> all_asked;
  {
    std::lock_guard lock(impl_->mutex);
    all_asked = impl_->asked;
  }
  for (const auto& [name, asked] : all_asked) families.push_back(Collect(name, asked));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace crisp::metrics
