#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace crisp::ctl {

/// One line of a container's log file: "<time> stdout|stderr F|P <text>".
struct LogLine {
  std::string_view time;
  bool from_stderr = false;
  bool partial = false;  // the text goes on in the next line
  std::string_view text;
};
/// False for what is no such line.
bool ParseLogLine(std::string_view line, LogLine& out);

/// Takes a log apart, in whatever pieces it comes.
class LogLines {
 public:
  /// The monitor's lines are shorter than 16 KiB, those of other runtimes seldom longer. What is
  /// longer than this is no log, and must not fill the memory.
  static constexpr std::size_t kMaxLine = std::size_t{1} << 20U;
  explicit LogLines(std::size_t max_line = kMaxLine) : max_line_(max_line) {}

  /// Hands over the lines that are whole now. What is none, and what is longer than `max_line`, is
  /// left out.
  void Feed(std::string_view bytes, const std::function<void(const LogLine&)>& line);
  /// What comes next is another file.
  void Clear();
  /// How much is kept, of a line that is not whole yet.
  std::size_t kept() const { return rest_.size(); }

 private:
  const std::size_t max_line_;
  std::string rest_;
  bool too_long_ = false;  // the line under way
};

}  // namespace crisp::ctl
