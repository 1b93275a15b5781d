#include "libs/base/quantity.h"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace crisp {

Result<std::uint64_t> ParseQuantity(std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view suffix(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (error != std::errc() || number < 0) return InvalidArgument("'{}' is no quantity", text);
  static constexpr std::array<std::pair<std::string_view, double>, 14> kFactors = {{
      {"", 1},
      {"m", 1e-3},
      {"k", 1e3},
      {"M", 1e6},
      {"G", 1e9},
      {"T", 1e12},
      {"P", 1e15},
      {"E", 1e18},
      {"Ki", 0x1p10},
      {"Mi", 0x1p20},
      {"Gi", 0x1p30},
      {"Ti", 0x1p40},
      {"Pi", 0x1p50},
      {"Ei", 0x1p60},
  }};
  for (const auto& [name, factor] : kFactors) {
    if (name != suffix) continue;
    const double value = std::ceil(number * factor);
    constexpr double kLimit = 0x1p63;
    if (!(value < kLimit)) return InvalidArgument("'{}' is too much", text);
    return static_cast<std::uint64_t>(value);
  }
  return InvalidArgument("'{}' is no quantity", text);
}

}  // namespace crisp
