#pragma once

#include <string_view>

#include "libs/base/status.h"

namespace crisp::ctl {

/// What a person can do about a failure that crisp has answered; empty where the message says it
/// all, or nobody knows.
std::string_view HintFor(const Status& status);

}  // namespace crisp::ctl
