#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/ref/ref.h"

namespace crisp::imaged {

/// How the name that a signature speaks of must relate to the name that was asked for.
struct SignedIdentity {
  enum class Kind {
    kMatchRepoDigestOrExact,  // by tag: the same name and tag; by digest: the same repository
    kMatchExact,
    kMatchRepository,
    kExactReference,
    kExactRepository,
    kRemapIdentity,  // `prefix` of the name asked for stands for `signed_prefix`
  };
  Kind kind = Kind::kMatchRepoDigestOrExact;
  std::string reference;  // of the two exact kinds
  std::string prefix;
  std::string signed_prefix;

  /// `signed_name`: docker-reference of a signature.
  bool Matches(const ref::ImageRef& asked, std::string_view signed_name) const;
};

/// Keys or certificates that a policy names.
struct Material {
  std::vector<std::string> paths;
  std::vector<std::string> data;  // decoded

  bool empty() const { return paths.empty() && data.empty(); }
  /// All of it. The error of a file that cannot be read names it.
  Result<std::vector<std::string>> Read() const;
};

/// Signers that an authority vouches for: Fulcio (by what an OpenID provider says of them), or a
/// PKI.
struct CertifiedSigner {
  Material roots;
  Material intermediates;   // of a PKI
  std::string oidc_issuer;  // Fulcio's; empty: a PKI
  std::string email;        // empty: any
  std::string hostname;     // empty: any
};

/// One condition of a policy; all conditions of a scope must hold.
struct Requirement {
  enum class Kind { kAccept, kReject, kSignedBy, kSigstoreSigned };
  Kind kind = Kind::kReject;
  Material keys;                          // of signers
  std::optional<CertifiedSigner> signer;  // sigstore, instead of keys
  Material
      log_keys;  // sigstore: of transparency logs (Rekor), one of which must know the signature
  SignedIdentity identity;
};

/// containers-policy.json(5), for images that come from registries (transport "docker").
class Policy {
 public:
  /// kInvalidArgument says which key is wrong; unknown keys are errors, as a policy that is
  /// understood by halves protects nobody.
  static Result<Policy> Parse(std::string_view text);
  /// The policy of a machine without one.
  static Policy AcceptAnything();

  /// The requirements of the most specific scope: the reference, its repository, the namespaces
  /// above it, the host, "*.domain" around the host, the transport's own default, the default.
  struct Match {
    std::string scope;
    const std::vector<Requirement>* requirements;
  };
  Match For(const ref::ImageRef& image) const;
  /// The same for an image without any name.
  Match ForNameless() const;

  /// Every file of keys or certificates that it names.
  std::vector<std::string> KeyPaths() const;

 private:
  struct Scope {
    std::string name;
    std::vector<Requirement> requirements;
  };
  const Scope* Find(std::string_view name) const;

  std::vector<Scope> scopes_;  // of docker
  std::vector<Requirement> default_;
};

}  // namespace crisp::imaged
