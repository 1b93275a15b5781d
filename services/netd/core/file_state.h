#pragma once

#include <string>

namespace crisp::netd {

/// What tells one state of a file from another: it is another file's, or after a write. Empty:
/// there is none. Links are followed.
std::string FileState(const std::string& path);

}  // namespace crisp::netd
