#pragma once

#include <string>

#include "libs/base/result.h"
#include "libs/os/beneath.h"

namespace crisp::rund {

/// Where a container's log goes: "" when either part is empty (what it writes is thrown away).
/// kInvalidArgument: a relative directory, an absolute file, "..", or a NUL, newline or colon in
/// either.
Result<std::string> LogPathOf(const std::string& log_directory, const std::string& log_path);

/// Makes the directories and the file (mode 0640, kept when it is there), without leaving
/// `log_directory` through symlinks. The directory that the file is in.
Result<os::Beneath> PrepareLog(const std::string& log_directory, const std::string& log_path);

}  // namespace crisp::rund
