#include "libs/base/ids.h"

#include <sys/random.h>

#include <algorithm>
#include <array>

#include "libs/base/check.h"

namespace crisp {
namespace {

constexpr std::size_t kIdLength = 64;
constexpr std::string_view kHex = "0123456789abcdef";

}  // namespace

std::string RandomIds::Next() {
  std::array<unsigned char, kIdLength / 2> bytes;
  // Up to 256 bytes are never cut short once the kernel's pool is ready (getrandom(2)).
  CRISP_CHECK(::getrandom(bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  std::string id;
  id.reserve(kIdLength);
  for (const unsigned char byte : bytes) {
    id.push_back(kHex[byte >> 4U]);
    id.push_back(kHex[byte & 0xFU]);
  }
  return id;
}

bool IsIdOrPrefix(std::string_view text) {
  return !text.empty() && text.size() <= kIdLength &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return kHex.find(c) != std::string_view::npos; });
}

bool IsFullId(std::string_view text) { return text.size() == kIdLength && IsIdOrPrefix(text); }

}  // namespace crisp
