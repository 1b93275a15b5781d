// Whatever is in a log file, in whatever pieces it is read.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "services/crispctl/log_lines.h"

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
  return 0;
}
