#pragma once

#include <optional>
#include <vector>

#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "libs/digest/certificate.h"
#include "libs/digest/public_key.h"
#include "services/imaged/core/policy.h"
#include "services/imaged/trust/signature.h"

namespace crisp::imaged {

/// Checks cosign's signatures by what one requirement of the policy trusts: keys, or certificates
/// that an authority has issued to a certain signer. Where the policy names transparency logs, one
/// of them must know the signature as well. Any thread.
class SigstoreKeys {
 public:
  /// Reads the keys and certificates. The error names what cannot be read or is none.
  static Result<SigstoreKeys> Load(const Requirement& requirement);

  /// kPermissionDenied says why a signature is not good. `now` is when certificates must be valid
  /// of which no log tells when they were used.
  Status Verify(const Signature& signature, WallTime now) const;

 private:
  struct Authority {
    CertifiedSigner signer;
    std::vector<digest::Certificate> roots;
    std::vector<digest::Certificate> intermediates;
  };

  Status ByKey(const Signature& signature) const;
  Status ByCertificate(const Authority& authority, const Signature& signature, WallTime now) const;
  Result<WallTime> WhenLogged(const Signature& signature, std::string signer_der,
                              WallTime unlogged) const;

  std::vector<digest::PublicKey> keys_;
  std::vector<digest::PublicKey> logs_;
  std::optional<Authority> authority_;
};

}  // namespace crisp::imaged
