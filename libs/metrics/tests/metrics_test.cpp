#include "libs/metrics/registry.h"

#include <chrono>
#include <future>

namespace crisp::metrics {
namespace {

bool Has(const Registry& registry, const std::string& line) {
  return ("\n" + registry.Render()).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_CASE("counters, gauges and histograms are rendered as Prometheus text") {
  Registry registry;
  registry.AddCounter("crisp_x_calls_total", "Calls", {{"code", "OK"}}).Add(2);
  registry.AddGauge("crisp_x_things", "Things").Set(-1.5);
  registry.AddHistogram("crisp_x_wait_seconds", "Wait", {0.1, 1}).Observe(0.5);
  CHECK(Has(registry, "# HELP crisp_x_calls_total Calls"));
  CHECK(Has(registry, "# TYPE crisp_x_calls_total counter"));
  CHECK(Has(registry, "crisp_x_calls_total{code=\"OK\"} 2"));
  CHECK(Has(registry, "crisp_x_things -1.5"));
  CHECK(Has(registry, "crisp_x_wait_seconds_bucket{le=\"0.1\"} 0"));
  CHECK(Has(registry, "crisp_x_wait_seconds_bucket{le=\"1\"} 1"));
  CHECK(Has(registry, "crisp_x_wait_seconds_count 1"));
}

TEST_CASE("the same name and labels are the same object") {
  Registry registry;
  Counter& one = registry.AddCounter("c_total", "C", {{"a", "1"}});
  CHECK(&one == &registry.AddCounter("c_total", "C", {{"a", "1"}}));
  CHECK(&one != &registry.AddCounter("c_total", "C", {{"a", "2"}}));
  one.Add();
  CHECK(one.Value() == 1);
}

TEST_CASE("an asked value may wait for somebody who adds metrics") {
  Registry registry;
  registry.AddGauge("q", "Queue", {}, [&registry] {
    auto add = std::async(std::launch::async, [&registry] { registry.AddCounter("c_total", "C"); });
    return add.wait_for(std::chrono::seconds(5)) == std::future_status::ready ? 1.0 : 0.0;
  });
  CHECK(Has(registry, "q 1"));
}

TEST_CASE("asked values are those of the moment") {
  Registry registry;
  double queue = 1;
  registry.AddGauge("q", "Queue", {{"lane", "wait"}}, [&queue] { return queue; });
  registry.AddCounter("n_total", "N", {}, [] { return 7.0; });
  CHECK(Has(registry, "q{lane=\"wait\"} 1"));
  queue = 3;
  CHECK(Has(registry, "q{lane=\"wait\"} 3"));
  CHECK(Has(registry, "# TYPE n_total counter"));
  CHECK(Has(registry, "n_total 7"));
}

TEST_CASE("the process tells about itself") {
  Registry registry;
  AddProcessMetrics(registry);
  const std::string text = registry.Render();
  CHECK(text.find("process_resident_memory_bytes ") != std::string::npos);
  CHECK(text.find("process_resident_memory_bytes 0\n") == std::string::npos);
  CHECK(text.find("process_open_fds 0\n") == std::string::npos);
}

}  // namespace crisp::metrics
