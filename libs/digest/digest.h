#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "libs/base/result.h"

namespace crisp::digest {

/// "sha256:" and 64 lower-case hexadecimal characters; always valid unless default-constructed.
class Digest {
 public:
  Digest() = default;
  /// kInvalidArgument: another algorithm, a wrong length, or other characters.
  static Result<Digest> Parse(std::string_view text);

  const std::string& str() const { return text_; }
  /// The 64 characters: fit for a file name.
  std::string_view hex() const { return std::string_view(text_).substr(text_.empty() ? 0 : 7); }
  bool empty() const { return text_.empty(); }
  /// The 32 bytes themselves; zeros when empty.
  std::array<unsigned char, 32> Bytes() const;
  auto operator<=>(const Digest&) const = default;

 private:
  friend class Sha256;
  explicit Digest(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

/// A running SHA-256. One thread at a time.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  void Update(std::span<const std::byte> bytes);
  void Update(std::string_view text);
  /// The digest of all so far, 64 characters; ends the stream: the next Update starts a new one.
  std::string Hex();
  Digest Finish();

 private:
  std::array<unsigned char, 32> Raw();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::string Sha256Hex(std::string_view text);
Digest Sha256Digest(std::string_view text);

}  // namespace crisp::digest

template <>
struct std::hash<crisp::digest::Digest> {
  std::size_t operator()(const crisp::digest::Digest& digest) const noexcept {
    return std::hash<std::string>()(digest.str());
  }
};
