#include "libs/base/closest.h"

#include <fmt/format.h>

#include <algorithm>

#include "libs/base/text.h"

namespace crisp {
namespace {

/// Longer words are nobody's typing mistake.
constexpr std::size_t kLongest = 64;

/// How many letters are to be put in, taken out, replaced or swapped with their neighbour
/// (the optimal string alignment distance).
std::size_t Distance(std::string_view a, std::string_view b) {
  // Rows of the table of distances between the beginnings of both; only the last two are looked at.
  std::vector<std::vector<std::size_t>> rows(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        rows[i][j] = i + j;
        continue;
      }
      const std::size_t replaced = rows[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      rows[i][j] = std::min({rows[i - 1][j] + 1, rows[i][j - 1] + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) rows[i][j] = std::min(rows[i][j], rows[i - 2][j - 2] + 1);
    }
  }
  return rows.back().back();
}

}  // namespace

std::string Closest(std::string_view word, const std::vector<std::string>& known) {
  if (word.size() > kLongest) return "";
  const std::string typed = Lower(word);
  std::size_t nearest = std::max<std::size_t>(word.size() / 3, 1) + 1;
  std::string best;
  for (const std::string& candidate : known) {
    if (candidate.size() > kLongest) continue;
    const std::size_t distance = Distance(typed, Lower(candidate));
    // Another word of the same few letters is no near one.
    if (distance >= nearest || distance >= candidate.size()) continue;
    nearest = distance;
    best = candidate;
  }
  return best;
}

std::string DidYouMean(std::string_view word, const std::vector<std::string>& known) {
  const std::string closest = Closest(word, known);
  return closest.empty() ? "" : fmt::format(" (did you mean '{}'?)", closest);
}

}  // namespace crisp
