#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "libs/archive/tar.h"
#include "libs/base/result.h"

namespace crisp::archive {

/// The blocks before an entry's contents: ustar, with a PAX header before it for what ustar cannot
/// say (long names, large numbers, fractions of seconds, extended attributes). The same entry gives
/// the same bytes. kInvalidArgument: a name with a zero byte.
Result<std::string> TarHeader(const TarEntry& entry);

/// What follows contents of so many bytes, up to the next block.
std::string_view TarPadding(std::uint64_t size);

/// What ends an archive.
std::string TarEnd();

}  // namespace crisp::archive
