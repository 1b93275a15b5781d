#pragma once

#include <functional>
#include <string>

#include "libs/base/status.h"
#include "libs/os/unique_fd.h"
#include "services/crispctl/log_lines.h"

namespace crisp::ctl {

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
  LogLines lines_;
};

}  // namespace crisp::ctl
