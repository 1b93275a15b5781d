#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <functional>
#include <optional>
#include <string>

#include "services/crispctl/log_lines.h"

namespace crisp::ctl {

/// The last lines of a log that is read from its begin. What the monitor has cut into pieces is one
/// line.
class LogTail {
 public:
  explicit LogTail(std::size_t most) : most_(most) {}

  void Add(const LogLine& line);
  /// Those that are left, the earliest first; lines that have not ended come last.
  void Give(const std::function<void(const LogLine&)>& line) const;

 private:
  struct Kept {
    std::string time;
    std::string text;
    bool from_stderr = false;
    bool partial = false;
  };
  void Cut();

  const std::size_t most_;
  std::deque<Kept> kept_;
  std::array<std::optional<Kept>, 2> open_;  // stdout's, stderr's: lines that have not ended
};

}  // namespace crisp::ctl
