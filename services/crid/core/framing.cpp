#include "services/crid/core/framing.h"

namespace crisp::crid {

void AppendField(int number, std::string_view bytes, std::string& message) {
  constexpr unsigned kLengthDelimited = 2;
  message.reserve(message.size() + bytes.size() + 6);
  message.push_back(static_cast<char>((static_cast<unsigned>(number) << 3U) | kLengthDelimited));
  std::size_t left = bytes.size();
  while (left >= 0x80U) {
    message.push_back(static_cast<char>((left & 0x7fU) | 0x80U));
    left >>= 7U;
  }
  message.push_back(static_cast<char>(left));
  message.append(bytes);
}

}  // namespace crisp::crid
