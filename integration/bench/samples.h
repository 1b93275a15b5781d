#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace crisp::bench {

/// Figures of one run, by name ("pod start, host network"), each with a unit ("ms", "MB",
/// "pods/s"). One thread.
class Samples {
 public:
  void Add(const std::string& name, const std::string& unit, double value);
  void AddTime(const std::string& name, std::chrono::steady_clock::duration took);
  /// A table: name, unit, n, min, median, p95.
  void Print() const;
  /// {"pod start": {"unit": "ms", "n": 20, "min": …, "median": …, "p95": …, "values": […]}, …}
  /// Written atomically enough for one reader; false when the file cannot be written.
  bool WriteJson(const std::string& path) const;

 private:
  struct Series {
    std::string unit;
    std::vector<double> values;
  };
  std::vector<std::string> order_;
  std::map<std::string, Series> series_;
};

/// Calls `work` until `parallel` threads have done `count` of them; how long it took in all.
template <typename Work>
std::chrono::steady_clock::duration InParallel(int count, int parallel, const Work& work);

}  // namespace crisp::bench

#include <atomic>
#include <thread>

template <typename Work>
std::chrono::steady_clock::duration crisp::bench::InParallel(int count, int parallel,
                                                             const Work& work) {
  std::atomic<int> next{0};
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (int i = 0; i < parallel; ++i) {
    threads.emplace_back([&] {
      for (int number = next++; number < count; number = next++) work(number);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return std::chrono::steady_clock::now() - start;
}
