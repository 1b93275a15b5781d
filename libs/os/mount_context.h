#pragma once

#include <string>
#include <string_view>

#include "libs/base/status.h"

namespace crisp::os {

/// What the kernel left to be read on a file system context (fsopen): "e overlay: ...".
std::string ContextMessages(int context);
/// An error with these words.
Status ContextError(int error, int context, std::string_view what);

}  // namespace crisp::os
