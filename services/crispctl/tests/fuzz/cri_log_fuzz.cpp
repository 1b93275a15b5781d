// Whatever is in a log file, in whatever pieces it is read.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "services/crispctl/log_lines.h"
#include "services/crispctl/log_tail.h"
#include "services/crispctl/log_time.h"

using namespace crisp::ctl;

namespace {

std::string Shown(const LogLine& line) {
  return std::string(line.time) + (line.from_stderr ? " stderr " : " stdout ") +
         (line.partial ? "P " : "F ") + std::string(line.text);
}

/// What LogLines should find, the simple way.
std::vector<std::string> Expected(std::string_view all, std::size_t max_line) {
  std::vector<std::string> lines;
  for (auto end = all.find('\n'); end != std::string_view::npos; end = all.find('\n')) {
    const std::string_view line = all.substr(0, end);
    all.remove_prefix(end + 1);
    LogLine parsed;
    if (line.size() > max_line || !ParseLogLine(line, parsed)) continue;
    if (!line.starts_with(parsed.time) || !line.ends_with(parsed.text)) std::abort();
    lines.push_back(Shown(parsed));
  }
  return lines;
}

/// No more than so many, and none that is longer than its pieces.
void CheckTail(std::string_view all, std::size_t most) {
  LogTail tail(most);
  std::size_t fed = 0;
  LogLines lines;
  lines.Feed(all, [&](const LogLine& line) {
    static_cast<void>(ParseLogTime(line.time));
    fed += line.text.size();
    tail.Add(line);
  });
  std::size_t count = 0;
  std::size_t given = 0;
  tail.Give([&](const LogLine& line) {
    ++count;
    given += line.text.size();
  });
  // A line of each stream may not have ended.
  if (count > std::max<std::size_t>(most, 2) || given > fed) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size < 2) return 0;
  const std::size_t max_line = bytes[0];
  const std::size_t step = bytes[1] % 32U + 1U;
  const std::string_view all(reinterpret_cast<const char*>(bytes) + 2, size - 2);
  const auto read = [&](std::size_t piece_size) {
    std::vector<std::string> got;
    LogLines lines(max_line);
    for (std::size_t at = 0; at < all.size(); at += piece_size) {
      lines.Feed(all.substr(at, piece_size),
                 [&got](const LogLine& line) { got.push_back(Shown(line)); });
      if (lines.kept() > max_line) std::abort();
    }
    return got;
  };
  const std::vector<std::string> expected = Expected(all, max_line);
  if (read(all.size() + 1) != expected || read(step) != expected) std::abort();
  CheckTail(all, step);
  return 0;
}
