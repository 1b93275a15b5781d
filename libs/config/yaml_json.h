#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>

#include "libs/base/result.h"

namespace crisp::config {

/// One YAML document as JSON: plain scalars become null, booleans and numbers where YAML 1.2 reads
/// them so, quoted ones stay text. (JSON is YAML; json::Parse is the stricter reader for it.)
/// kInvalidArgument: not YAML, a key that is no scalar, more than `max_values` values with all
/// aliases written out, or nested deeper than 64.
Result<nlohmann::json> YamlToJson(std::string_view yaml, std::size_t max_values = 100'000);

}  // namespace crisp::config
