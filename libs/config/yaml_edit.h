#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"

namespace crisp::config {

/// The document with `value` (YAML: "debug", "[a, b]", "null") at `path`; maps are made on the way.
/// Scalars keep their spelling (0022 is no number), comments are lost. kInvalidArgument: not YAML,
/// or something on the way is no map.
Result<std::string> WithValue(std::string_view yaml, const std::vector<std::string>& path,
                              std::string_view value);

}  // namespace crisp::config
