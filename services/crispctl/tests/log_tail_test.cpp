#include "services/crispctl/log_tail.h"

#include <catch2/catch.hpp>
#include <string>

namespace crisp::ctl {
namespace {

std::string Given(const LogTail& tail) {
  std::string seen;
  tail.Give([&seen](const LogLine& line) {
    seen += std::string(line.time) + (line.from_stderr ? "!" : " ") + std::string(line.text) +
            (line.partial ? "..." : "|");
  });
  return seen;
}

}  // namespace

TEST_CASE("The last lines of a log, in their order") {
  LogTail tail(2);
  CHECK(Given(tail).empty());
  tail.Add({"1", false, false, "one"});
  CHECK(Given(tail) == "1 one|");
  tail.Add({"2", true, false, "two"});
  tail.Add({"3", false, false, ""});
  CHECK(Given(tail) == "2!two|3 |");
}

TEST_CASE("A line in pieces is one, of the time of the first, whatever is between them") {
  LogTail tail(2);
  tail.Add({"1", false, false, "before"});
  tail.Add({"2", false, true, "a"});
  tail.Add({"3", true, false, "error"});
  tail.Add({"4", false, true, "b"});
  CHECK(Given(tail) == "3!error|2 ab...");
  tail.Add({"5", false, false, "c"});
  CHECK(Given(tail) == "3!error|2 abc|");
  tail.Add({"6", true, true, "no end"});
  CHECK(Given(tail) == "2 abc|6!no end...");
}

TEST_CASE("Of no lines at all nothing is kept, and a line without an end costs so much at most") {
  LogTail none(0);
  none.Add({"1", false, true, "a"});
  none.Add({"2", false, false, "b"});
  CHECK(Given(none).empty());
  LogTail one(1);
  const std::string piece(16 << 10U, 'x');
  for (int i = 0; i < 1000; ++i) one.Add({"1", false, true, piece});
  CHECK(Given(one).size() <= 2 * LogLines::kMaxLine);
}

}  // namespace crisp::ctl
