#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "libs/base/result.h"

namespace crisp {

/// RFC 4648 with padding.
std::string Base64(std::string_view bytes);
/// kInvalidArgument for other characters or a wrong length; missing padding is taken.
Result<std::string> FromBase64(std::string_view text);

/// The bytes of the UTF-8 character that the text begins with; 0 when it begins with none.
std::size_t Utf8Length(std::string_view text);
/// A byte of a UTF-8 character that is not its first.
inline bool IsUtf8Tail(char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U; }
/// True for well-formed UTF-8: all that JSON can carry.
bool IsUtf8(std::string_view bytes);
/// As it is where it is UTF-8, with "?" for each byte that is none; cut after a whole character.
std::string ToUtf8(std::string_view bytes, std::size_t max_bytes);

/// For Markdown: the text as it is, whatever its signs.
std::string EscapeMarkdown(std::string_view text);

/// ASCII letters in lower case, all other bytes as they are; whatever the locale.
std::string Lower(std::string_view text);

}  // namespace crisp
