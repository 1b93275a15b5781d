#include "services/crispctl/log_reader.h"

#include <catch2/catch.hpp>
#include <cstdio>
#include <string>

#include "libs/os/files.h"
#include "libs/testing/test_root.h"

namespace crisp::ctl {

TEST_CASE("Lines of a container's log are read with their stream and their end") {
  LogLine line;
  REQUIRE(ParseLogLine("2026-01-02T03:04:05.6Z stderr F an  error", line));
  CHECK(line.time == "2026-01-02T03:04:05.6Z");
  CHECK(line.from_stderr);
  CHECK_FALSE(line.partial);
  CHECK(line.text == "an  error");
  REQUIRE(ParseLogLine("t stdout P ", line));
  CHECK(line.partial);
  CHECK(line.text.empty());
  CHECK_FALSE(ParseLogLine("", line));
  CHECK_FALSE(ParseLogLine("t stdout", line));
  CHECK_FALSE(ParseLogLine("t elsewhere F text", line));
}

TEST_CASE("A log is read as it grows, line by line, and over a rotation") {
  const testing::TestRoot root;
  LogReader reader(root / "c.log");
  std::string seen;
  auto read = [&] {
    seen.clear();
    REQUIRE(
        reader.Read([&seen](const LogLine& line) { seen += std::string(line.text) + "|"; }).ok());
    return seen;
  };
  CHECK(read().empty());  // not there yet
  root.Write("c.log", "t stdout F one\nt stdout F tw");
  CHECK(read() == "one|");
  root.Write("c.log", "t stdout F one\nt stdout F two\n");
  CHECK(read() == "two|");
  CHECK(read().empty());
  REQUIRE(std::rename((root / "c.log").c_str(), (root / "c.log.1").c_str()) == 0);
  // What is written before the new file is there is not lost, nor read twice.
  CHECK(read().empty());
  REQUIRE(os::AppendFile(root / "c.log.1", "t stdout F late\n").ok());
  CHECK(read() == "late|");
  REQUIRE(os::AppendFile(root / "c.log.1", "t stdout F later\n").ok());
  root.Write("c.log", "t stdout F three\n");
  CHECK(read() == "later|three|");
}

TEST_CASE("A log without an end of line does not fill the memory, and goes on after it") {
  LogLines lines(100);
  std::string seen;
  const auto feed = [&](std::string_view bytes) {
    lines.Feed(bytes, [&seen](const LogLine& line) { seen += std::string(line.text) + "|"; });
  };
  const std::string head = "t stdout F ";
  for (int i = 0; i < 1000; ++i) {
    feed(head + "no end");
    CHECK(lines.kept() <= 100);
  }
  feed(" but here\n" + head + "next\n");
  CHECK(seen == "next|");
  seen.clear();
  // As long as may be, and one more; in one piece or two.
  const std::string longest = head + std::string(100 - head.size(), 'x');
  feed(longest + "\n" + longest + "x\n" + longest);
  feed("x\n" + head + "end\n");
  CHECK(seen == longest.substr(head.size()) + "|end|");
}

}  // namespace crisp::ctl
