#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/digest/digest.h"
#include "libs/http/client.h"

namespace crisp::imaged {

/// Something that speaks for a manifest; nothing about it has been verified.
struct Signature {
  enum class Kind { kSimple, kSigstore };
  Kind kind = Kind::kSimple;
  digest::Digest manifest;  // that it was found for
  std::string data;         // simple: the OpenPGP message; sigstore: the payload
  std::string raw;          // sigstore: the signature's bytes over it
  std::string certificate;  // sigstore, PEM: of the signer; may be empty as what follows
  std::string chain;        // sigstore, PEM: what lies between it and its authority
  std::string promise;      // sigstore: a transparency log's (cosign's "bundle")

  std::size_t bytes() const {
    return data.size() + raw.size() + certificate.size() + chain.size() + promise.size();
  }
};

/// What a signed payload claims.
struct Claim {
  std::string manifest_digest;
  std::string reference;  // docker-reference
};
/// Strict: kInvalidArgument for anything that should not be there. `type` is what critical.type
/// must say.
Result<Claim> ParseClaim(std::string_view payload, std::string_view type);
inline constexpr std::string_view kSimpleType = "atomic container signature";
inline constexpr std::string_view kSigstoreType = "cosign container image signature";

/// Where signatures of simple signing lie: registries.d (containers-registries.d(5)).
class Lookaside {
 public:
  /// Reads every *.yaml of the directory; absent: the built-in place alone.
  static Result<Lookaside> Load(const std::string& directory);
  /// "https://…" or "file:///…" for an image's name ("docker.io/library/busybox").
  std::string For(std::string_view name) const;
  /// The directories among them.
  std::vector<std::string> LocalPaths() const;

 private:
  std::string default_;
  std::vector<std::pair<std::string, std::string>> scopes_;
};

/// All signatures of a manifest at a lookaside, in order. None is Ok.
Result<std::vector<Signature>> FetchSimple(const CallContext& cc, http::Client& client,
                                           const std::string& lookaside, const std::string& name,
                                           const digest::Digest& manifest);

/// How the image's own repository is read.
struct RepositoryReader {
  /// A manifest's text by tag; kNotFound.
  std::function<Result<std::string>(const CallContext&, const std::string& tag)> manifest;
  /// A small blob, verified.
  std::function<Result<std::string>(const CallContext&, const digest::Digest&, Bytes limit)> blob;
};
/// Those that cosign attached to a manifest, under the tag sha256-<hex>.sig. None is Ok.
Result<std::vector<Signature>> FetchSigstore(const CallContext& cc, const RepositoryReader& reader,
                                             const digest::Digest& manifest);

/// For the catalogue.
std::string EncodeSignature(const Signature& signature);
Result<Signature> DecodeSignature(std::string_view text);

}  // namespace crisp::imaged
