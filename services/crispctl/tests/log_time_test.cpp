#include "services/crispctl/log_time.h"

#include <catch2/catch.hpp>
#include <string>

namespace crisp::ctl {
namespace {

using namespace std::chrono_literals;
using std::chrono::sys_days;

WallTime Noon() { return sys_days(std::chrono::year(2026) / 11 / 26) + 12h; }

}  // namespace

TEST_CASE("Times of logs, with a zone and a fraction of any length") {
  CHECK(ParseLogTime("2026-11-26T12:00:00Z") == Noon());
  CHECK(ParseLogTime("2026-11-26T12:00:00.000000001Z") == Noon() + 1ns);
  CHECK(ParseLogTime("2026-11-26T12:00:00.5+00:00") == Noon() + 500ms);
  CHECK(ParseLogTime("2026-11-26T12:00:00.1234567891Z") == Noon() + 123456789ns);
  CHECK(ParseLogTime("2026-11-26T14:30:00+02:30") == Noon());
  CHECK(ParseLogTime("2026-11-26T04:00:00-08:00") == Noon());
  CHECK(ParseLogTime("2026-11-26t12:00:60z") == Noon() + 60s);
}

TEST_CASE("What is no time is none") {
  for (const char* text :
       {"", "t", "2026-11-26", "2026-11-26T12:00:00", "2026-11-26T12:00Z", "2026-13-26T12:00:00Z",
        "2026-02-29T12:00:00Z", "2026-11-26T24:00:00Z", "2026-11-26T12:60:00Z",
        "2026-11-26T12:00:61Z", "2026-11-26T12:00:00.Z", "2026-11-26T12:00:00Zx",
        "2026-11-26T-1:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z",
        "2026-11-26T12:00:00+1:00", "2026-11-26 12:00:00Z"}) {
    INFO(text);
    CHECK_FALSE(ParseLogTime(text));
  }
}

TEST_CASE("Since when: how long ago, or a time") {
  const auto since = [](const char* text) { return ParseSince(text, Noon()); };
  CHECK(since("90s").value() == Noon() - 90s);
  CHECK(since("10m").value() == Noon() - 10min);
  CHECK(since("1h30m").value() == Noon() - 90min);
  CHECK(since("2d").value() == Noon() - 48h);
  CHECK(since("2026-11-26T11:00:00Z").value() == Noon() - 1h);
  for (const char* text : {"", "10", "m", "-5m", "1h30", "5 m", "1w", "yesterday", "1000000d",
                           "99999999999999999999s", "1000000d1000000d1000000d"}) {
    INFO(text);
    CHECK(since(text).code() == Code::kInvalidArgument);
  }
}

}  // namespace crisp::ctl
