#pragma once

#include <cstddef>
#include <string>
#include <string_view>

// What this library's users of OpenSSL share, without its headers.
namespace crisp::digest::internal {

inline constexpr std::size_t kMaxPem = std::size_t{64} << 10U;

/// A deleter by one of OpenSSL's functions.
template <auto kFree>
struct FreeBy {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};

inline const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

/// What one of the i2d functions makes of an object; empty when it cannot.
template <auto kEncode, typename T>
std::string DerOf(const T* object) {
  const int size = kEncode(object, nullptr);
  if (size <= 0) return "";
  std::string der(static_cast<std::size_t>(size), '\0');
  auto* at = reinterpret_cast<unsigned char*>(der.data());
  kEncode(object, &at);
  return der;
}

/// For encrypted PEM: there is nobody to ask.
inline int NoPassword(char* /*into*/, int /*size*/, int /*writing*/, void* /*user*/) { return -1; }

}  // namespace crisp::digest::internal
