#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "libs/base/call_context.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/os/unique_fd.h"

namespace crisp::rund {

/// What a container's log may be. Nothing of it set: conmon writes the file by itself.
struct LogLimits {
  Bytes rate{0};  // a second, over time; 0 = as fast as it comes
  Bytes burst{0};
  bool block = false;    // too much waits, and the container with it; else it is left out
  Bytes max_size{0};     // the file is then started anew; 0 = never
  bool guarded = false;  // crisp-log writes it in any case

  bool any() const { return rate > Bytes(0) || max_size > Bytes(0) || guarded; }
};

/// One container's crisp-log (services/rund/logger), which writes its log in conmon's stead. It
/// outlives us.
struct LoggerArgs {
  std::string program;  // crisp-log; empty = it is not installed
  std::string bundle;
  int directory = -1;  // where the log is; open
  std::string name;    // in there
  LogLimits limits;
  bool again = false;  // one before this was lost: the log says so
};

/// What did not get into a log since its logger was started.
struct LogCounts {
  std::uint64_t dropped_lines = 0;  // because of the limit
  std::uint64_t dropped_bytes = 0;
  std::uint64_t lost_lines = 0;  // because the file could not be written
  std::uint64_t lost_bytes = 0;
};

struct LoggerAnswer {
  LogCounts counts;
  pid_t pid = 0;  // of the logger; 0: an older one, which does not say
};

/// The FIFO between conmon and crisp-log.
std::string LoggerFifo(const std::string& bundle);

/// Makes the FIFO (or takes the one that is there) and starts crisp-log on it. What is returned
/// keeps it running: close it once conmon has the FIFO open, or will never have; from then on it
/// ends with conmon. So nothing is left of it, whenever we are killed.
/// Errors: kUnavailable without crisp-log; kInternal with its words.
Result<os::UniqueFd> StartLogger(const CallContext& cc, const LoggerArgs& args);

/// One request (logger/control.h), answered in milliseconds. kNotFound: there is no logger (any
/// more); kDeadlineExceeded: it does not answer; else what it failed at, with the errno.
Result<LoggerAnswer> AskLogger(const CallContext& cc, const std::string& bundle,
                               std::string_view request);

}  // namespace crisp::rund
