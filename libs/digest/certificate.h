#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "libs/digest/public_key.h"

namespace crisp::digest {

/// An X.509 certificate that speaks for whoever signs code or images. A copy is cheap. Any thread.
class Certificate {
 public:
  /// PEM, "BEGIN CERTIFICATE", exactly one. kInvalidArgument otherwise.
  static Result<Certificate> ParsePem(std::string_view pem);
  /// As many as there are, one at least.
  static Result<std::vector<Certificate>> ParseAllPem(std::string_view pem);

  /// Ok when at that time a chain of valid certificates, each allowed to sign code, leads over
  /// `intermediates` to one of `roots` (RFC 5280). kPermissionDenied says why not.
  Status CheckChain(const std::vector<Certificate>& roots,
                    const std::vector<Certificate>& intermediates, WallTime at) const;
  /// kInvalidArgument: of a kind that PublicKey does not know.
  Result<PublicKey> Key() const;
  std::string Der() const;
  /// The mail addresses among its subject alternative names.
  std::vector<std::string> Emails() const;
  /// One of its subject alternative names is this host name, or a wildcard for it.
  bool IsForHost(const std::string& name) const;
  /// The value of the extension with this dotted object identifier; nothing without one.
  /// kInvalidArgument: it is there twice.
  Result<std::optional<std::string>> Extension(const std::string& oid) const;

 private:
  struct Impl;
  explicit Certificate(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

/// The text in an ASN.1 UTF8String (DER). kInvalidArgument.
Result<std::string> TextOfDer(std::string_view der);

/// The bytes of the one block of a PEM text, whatever it holds. kInvalidArgument.
Result<std::string> DerOfPem(std::string_view pem);

}  // namespace crisp::digest
