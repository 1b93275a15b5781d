#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"

namespace crisp::netd {

/// An IPv4 or IPv6 address, without a prefix length.
bool IsAddress(const std::string& text);

/// A result that a plugin printed, in the form of CNI `version`: the next plugin, DEL and CHECK get
/// it in the version that the configuration speaks, whichever the plugin answered in.
/// kInvalidArgument: a version that is not known, a list that is none.
Result<nlohmann::json> ResultAs(nlohmann::json result, std::string_view version);

/// The pod's addresses from a CNI result, without prefix lengths, in its order. kInvalidArgument:
/// not a result, or an address that is none (the kubelet would drop them all).
Result<std::vector<std::string>> AddressesOf(const nlohmann::json& result);

}  // namespace crisp::netd
