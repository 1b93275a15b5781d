#pragma once

#include <string>
#include <string_view>

#include "libs/base/result.h"

namespace crisp {

/// RFC 4648 with padding.
std::string Base64(std::string_view bytes);
/// kInvalidArgument for other characters or a wrong length; missing padding is taken.
Result<std::string> FromBase64(std::string_view text);

/// ASCII letters in lower case, all other bytes as they are; whatever the locale.
std::string Lower(std::string_view text);

}  // namespace crisp
