#include "services/crispctl/log_lines.h"

#include <utility>

namespace crisp::ctl {
namespace {

std::string_view TakeWord(std::string_view& text) {
  const std::size_t blank = text.find(' ');
  if (blank == std::string_view::npos) return std::exchange(text, {});
  const std::string_view word = text.substr(0, blank);
  text.remove_prefix(blank + 1);
  return word;
}

}  // namespace

bool ParseLogLine(std::string_view line, LogLine& out) {
  out.time = TakeWord(line);
  const std::string_view stream = TakeWord(line);
  const std::string_view tag = TakeWord(line);
  if (stream != "stdout" && stream != "stderr") return false;
  if (!tag.starts_with('F') && !tag.starts_with('P')) return false;
  out.from_stderr = stream == "stderr";
  out.partial = tag.starts_with('P');
  out.text = line;
  return true;
}

void LogLines::Feed(std::string_view bytes, const std::function<void(const LogLine&)>& line) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, end);
    too_long_ = too_long_ || piece.size() > max_line_ - rest_.size();
    if (too_long_) {
      rest_.clear();
    } else {
      rest_ += piece;
    }
    if (end == std::string_view::npos) return;
    LogLine parsed;
    if (!too_long_ && ParseLogLine(rest_, parsed)) line(parsed);
    Clear();
    bytes.remove_prefix(end + 1);
  }
}

void LogLines::Clear() {
  rest_.clear();
  too_long_ = false;
}

}  // namespace crisp::ctl
