#include "integration/bench/samples.h"

#include <fmt/core.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

namespace crisp::bench {
namespace {

/// The value below which `part` of the sorted values lie (nearest rank).
double Rank(const std::vector<double>& sorted, double part) {
  const auto index = static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1) + 0.5);
  return sorted.at(index);
}

}  // namespace

void Samples::Add(const std::string& name, const std::string& unit, double value) {
  if (!series_.contains(name)) order_.push_back(name);
  Series& series = series_[name];
  series.unit = unit;
  series.values.push_back(value);
}

void Samples::AddTime(const std::string& name, std::chrono::steady_clock::duration took) {
  Add(name, "ms", std::chrono::duration<double, std::milli>(took).count());
}

void Samples::Print() const {
  fmt::print("{:<44} {:>7} {:>5} {:>10} {:>10} {:>10}\n", "", "unit", "n", "min", "median", "p95");
  for (const std::string& name : order_) {
    const Series& series = series_.at(name);
    std::vector<double> sorted = series.values;
    std::sort(sorted.begin(), sorted.end());
    fmt::print("{:<44} {:>7} {:>5} {:>10.3f} {:>10.3f} {:>10.3f}\n", name, series.unit,
               sorted.size(), sorted.front(), Rank(sorted, 0.5), Rank(sorted, 0.95));
  }
}

bool Samples::WriteJson(const std::string& path) const {
  nlohmann::ordered_json all = nlohmann::ordered_json::object();
  for (const std::string& name : order_) {
    const Series& series = series_.at(name);
    std::vector<double> sorted = series.values;
    std::sort(sorted.begin(), sorted.end());
    all[name] = {{"unit", series.unit},       {"n", sorted.size()},
                 {"min", sorted.front()},     {"median", Rank(sorted, 0.5)},
                 {"p95", Rank(sorted, 0.95)}, {"values", series.values}};
  }
  std::ofstream out(path);
  out << all.dump(1) << "\n";
  return out.good();
}

}  // namespace crisp::bench
