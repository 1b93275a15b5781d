#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"

namespace crisp::rund {

/// The part of an OCI image configuration that a container takes over.
struct ImageConfig {
  std::string user;
  std::vector<std::string> env;  // "K=V"
  std::vector<std::string> entrypoint;
  std::vector<std::string> cmd;
  std::string working_dir;
  std::vector<std::string> volumes;  // sorted
  std::string stop_signal;
};

/// kInvalidArgument: not JSON, or a field has another type than the image spec gives it. Absent and
/// null fields are empty; so is an empty text as a whole.
Result<ImageConfig> ParseImageConfig(std::string_view text);

/// "SIGTERM", "TERM", "15", "SIGRTMIN+3" → the number; 0 for what is no signal.
int SignalNumber(std::string_view name);

}  // namespace crisp::rund
