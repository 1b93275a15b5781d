#pragma once

#include <cstdint>
#include <string_view>

#include "libs/base/result.h"

namespace crisp {

/// A Kubernetes quantity, rounded up to a whole number: "10M", "1Gi", "1.5k", "2e3".
/// kInvalidArgument for what is none, is negative or does not fit into 63 bits.
Result<std::uint64_t> ParseQuantity(std::string_view text);

}  // namespace crisp
