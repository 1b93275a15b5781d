#pragma once

#include <string>
#include <string_view>

#include "libs/base/result.h"

namespace crisp::archive {

/// One gzip member. kInternal: the library would not have it.
Result<std::string> Gzip(std::string_view text);

}  // namespace crisp::archive
