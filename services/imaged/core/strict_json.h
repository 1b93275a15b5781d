#pragma once

#include <initializer_list>
#include <string_view>

#include "libs/base/result.h"
#include "libs/json/json.h"

namespace crisp::imaged {

/// An object with no other keys than these. kInvalidArgument names the one that is too many.
Status OnlyKeys(const nlohmann::json& object, std::initializer_list<std::string_view> known);
/// An object with just these keys.
Status ExactlyKeys(const nlohmann::json& object, std::initializer_list<std::string_view> keys);

}  // namespace crisp::imaged
