#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "libs/base/result.h"

namespace crisp::digest {

/// A public key that signatures are checked with: ECDSA or RSA (PKCS #1 v1.5) over SHA-256, or
/// Ed25519. Any thread.
class PublicKey {
 public:
  /// PEM, "BEGIN PUBLIC KEY". kInvalidArgument: malformed, or another kind of key.
  static Result<PublicKey> ParsePem(std::string_view pem);
  PublicKey(PublicKey&&) noexcept;
  PublicKey& operator=(PublicKey&&) noexcept;
  ~PublicKey();

  /// As a SubjectPublicKeyInfo: of one key always the same bytes.
  std::string Der() const;
  /// True when `signature` (DER for ECDSA) is this key's over `message`.
  bool Verify(std::string_view message, std::string_view signature) const;

 private:
  struct Impl;
  explicit PublicKey(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace crisp::digest
