#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "services/crispctl/convert/option.h"

namespace crisp::ctl::convert {

enum class Runtime { kCrio, kContainerd };

/// "CRI-O", "containerd".
std::string_view NameOf(Runtime runtime);

/// The configuration of another runtime, as its own reader would put it together.
struct Source {
  Runtime runtime = Runtime::kCrio;
  std::vector<std::string> files;  // in the order in which they count
  Options options;                 // with the defaults that crisp does not share
};

/// Reads files (of CRI-O each with its <file>.d) and directories (all files in it, or what
/// /etc/crio or /etc/containerd has). No path: where the runtime looks itself. `runtime`: whose
/// they are; without it what is in the first one says so.
/// kNotFound, kInvalidArgument "file:line: what is wrong".
Result<Source> ReadSource(std::optional<Runtime> runtime, const std::vector<std::string>& paths);

}  // namespace crisp::ctl::convert
