#include "services/crispctl/log_time.h"

#include <charconv>
#include <chrono>
#include <cstdint>

namespace crisp::ctl {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::nanoseconds;
using std::chrono::seconds;

/// Takes `text` apart from its begin. What does not fit is remembered; the caller asks at the end.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  int Digits(std::size_t count) {
    int value = 0;
    const std::string_view digits = rest_.substr(0, count);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const bool fits =
        error == std::errc() && end == digits.data() + count && value >= 0 && digits.front() != '-';
    if (!fits) good_ = false;
    rest_.remove_prefix(digits.size());
    return value;
  }
  /// One of these.
  char Take(std::string_view choice) {
    if (rest_.empty() || choice.find(rest_.front()) == choice.npos) {
      good_ = false;
      return 0;
    }
    const char taken = rest_.front();
    rest_.remove_prefix(1);
    return taken;
  }
  bool Next(char wanted) const { return rest_.starts_with(wanted); }
  /// The digits behind a point. More than nine are cut.
  nanoseconds Fraction() {
    std::int64_t value = 0;
    std::size_t count = 0;
    while (!rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9') {
      if (count++ < 9) value = value * 10 + (rest_.front() - '0');
      rest_.remove_prefix(1);
    }
    if (count == 0) good_ = false;
    for (; count < 9; ++count) value *= 10;
    return nanoseconds(value);
  }
  bool AllGood() const { return good_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool good_ = true;
};

std::optional<seconds> UnitOf(char letter) {
  switch (letter) {
    case 's': return seconds(1);
    case 'm': return minutes(1);
    case 'h': return hours(1);
    case 'd': return hours(24);
    default: return std::nullopt;
  }
}

/// "1h30m".
std::optional<seconds> ParseSpan(std::string_view text) {
  constexpr std::int64_t kMost = 1'000'000;  // of any unit: no sum overflows
  seconds sum{0};
  if (text.empty()) return std::nullopt;
  while (!text.empty()) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (error != std::errc() || value < 0 || value > kMost || text.empty()) return std::nullopt;
    const auto unit = UnitOf(text.front());
    if (!unit || sum > kMost * hours(24)) return std::nullopt;
    sum += value * *unit;
    text.remove_prefix(1);
  }
  return sum;
}

}  // namespace

std::optional<WallTime> ParseLogTime(std::string_view text) {
  Scanner scan(text);
  const std::chrono::year year(scan.Digits(4));
  scan.Take("-");
  const std::chrono::month month(static_cast<unsigned>(scan.Digits(2)));
  scan.Take("-");
  const std::chrono::day day(static_cast<unsigned>(scan.Digits(2)));
  scan.Take("Tt");
  const hours hour(scan.Digits(2));
  scan.Take(":");
  const minutes minute(scan.Digits(2));
  scan.Take(":");
  const seconds second(scan.Digits(2));
  nanoseconds fraction{0};
  if (scan.Next('.')) {
    scan.Take(".");
    fraction = scan.Fraction();
  }
  minutes zone{0};
  if (const char sign = scan.Take("Zz+-"); sign == '+' || sign == '-') {
    const hours zone_hours(scan.Digits(2));
    scan.Take(":");
    zone = zone_hours + minutes(scan.Digits(2));
    if (sign == '-') zone = -zone;
  }
  const auto date = year / month / day;
  // A leap second is the next one.
  if (!scan.AllGood() || !date.ok() || hour >= hours(24) || minute >= minutes(60) ||
      second > seconds(60)) {
    return std::nullopt;
  }
  // What nanoseconds since 1970 can count.
  if (static_cast<int>(year) < 1700 || static_cast<int>(year) > 2200) return std::nullopt;
  return WallTime(std::chrono::sys_days(date)) + hour + minute + second + fraction - zone;
}

Result<WallTime> ParseSince(std::string_view text, WallTime now) {
  if (const auto time = ParseLogTime(text)) return *time;
  const auto span = ParseSpan(text);
  // Longer than anybody has logged.
  constexpr hours kMost{24 * 365 * 100};
  if (span && *span <= kMost) return now - *span;
  return InvalidArgument(
      "'{}' is no time: write how long ago (90s, 10m, 1h30m, 2d), or 2026-01-31T12:00:00Z", text);
}

}  // namespace crisp::ctl
