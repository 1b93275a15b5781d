#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace crisp::rund {

/// Absolute, without ".", "..", doubled or trailing slashes; "" and a relative path are taken from
/// "/". By letter only: links are the runtime's business.
std::string CleanPath(std::string_view path);

/// How many names deep: "/" 0, "/a/b" 2. For clean paths.
int PathDepth(std::string_view path);

/// The parts between separators, empty ones as well; of an empty text one.
std::vector<std::string_view> Split(std::string_view text, char separator);

}  // namespace crisp::rund
