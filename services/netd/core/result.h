#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libs/base/result.h"

namespace crisp::netd {

/// The pod's addresses from a CNI result, without prefix lengths, in its order. kInvalidArgument:
/// not a result, or an address that is none (the kubelet would drop them all).
Result<std::vector<std::string>> AddressesOf(const nlohmann::json& result);

}  // namespace crisp::netd
