#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"

namespace crisp::crid {

/// Cuts a serialised list answer (a message of which only the repeated field 1 is set) between its
/// elements into messages of the same form, each of at most `max_bytes` or of one element. An empty
/// list is no message. kInternal: not such a message.
Result<std::vector<std::string>> CutList(std::string_view list, std::size_t max_bytes = 1 << 20);

}  // namespace crisp::crid
