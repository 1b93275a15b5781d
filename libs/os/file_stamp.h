#pragma once

#include <string>

namespace crisp::os {

/// What tells one state of a file from another: it differs where the path leads to another file, or
/// to the same one after a write. Empty: there is none, or none that we may see. Links are
/// followed.
std::string FileStamp(const std::string& path);

}  // namespace crisp::os
