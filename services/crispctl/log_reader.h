#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "libs/base/status.h"
#include "libs/os/unique_fd.h"

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

/// Reads a container's log file as far as it is written, again and again; goes over to the new
/// file after a rotation.
class LogReader {
 public:
  explicit LogReader(std::string path) : path_(std::move(path)) {}

  /// Whole lines that are new since the last call. A file that is not there (yet) is Ok.
  Status Read(const std::function<void(const LogLine&)>& line);

 private:
  Status Drain(const std::function<void(const LogLine&)>& line);

  const std::string path_;
  os::UniqueFd fd_;
  std::string rest_;  // of an unfinished line
};

}  // namespace crisp::ctl
