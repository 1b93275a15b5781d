#include "services/imaged/trust/trust.h"

#include <algorithm>
#include <optional>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "services/imaged/trust/gpg.h"
#include "services/imaged/trust/sigstore.h"

namespace crisp::imaged {
namespace {

constexpr std::string_view kFailed = "SignatureValidationFailed";
constexpr Bytes kMaxSignatures = MiB(8);  // of all that one image has

/// Checks signatures of one kind with the keys of one requirement; the payload of a good one.
class Verifier {
 public:
  static Result<Verifier> Make(const CallContext& cc, const Requirement& requirement,
                               const std::string& temp_root, WallTime now) {
    Verifier verifier;
    verifier.now_ = now;
    if (requirement.kind == Requirement::Kind::kSignedBy) {
      const std::vector<std::string> keys = CRISP_TRY(requirement.keys.Read().While("key"));
      verifier.gpg_ = CRISP_TRY(GpgKeys::Import(cc, temp_root, keys).While("GPG keys"));
    } else {
      verifier.sigstore_ = CRISP_TRY(SigstoreKeys::Load(requirement));
    }
    return verifier;
  }
  Signature::Kind kind() const {
    return gpg_ ? Signature::Kind::kSimple : Signature::Kind::kSigstore;
  }
  std::string_view claim_type() const { return gpg_ ? kSimpleType : kSigstoreType; }
  Result<std::string> Verify(const CallContext& cc, const Signature& signature) const {
    if (gpg_) return gpg_->Verify(cc, signature.data);
    CRISP_TRY(sigstore_.Verify(signature, now_));
    return signature.data;
  }

 private:
  std::optional<GpgKeys> gpg_;
  SigstoreKeys sigstore_;
  WallTime now_;
};

Status CheckOne(const CallContext& cc, const Verifier& verifier, const Signature& signature,
                const SignedIdentity& identity, const ref::ImageRef& image,
                const std::vector<digest::Digest>& manifests) {
  const std::string payload = CRISP_TRY(verifier.Verify(cc, signature));
  const Claim claim = CRISP_TRY(ParseClaim(payload, verifier.claim_type()).While("what is signed"));
  const bool ours = std::any_of(manifests.begin(), manifests.end(), [&](const auto& digest) {
    return digest.str() == claim.manifest_digest;
  });
  if (!ours) return PermissionDenied("it signs the manifest {:.80}", claim.manifest_digest);
  if (!identity.Matches(image, claim.reference))
    return PermissionDenied("it is for {:.300}", claim.reference);
  return Status::Ok();
}

}  // namespace

Result<Policy> Trust::LoadPolicy() {
  const Result<std::string> text = os::ReadFile(options_.policy);
  if (text.code() == Code::kNotFound && options_.policy_may_be_absent) {
    if (!told_absent_.exchange(true))
      log::Warn("no signature policy: images of any origin are accepted",
                {{"path", options_.policy}});
    return Policy::AcceptAnything();
  }
  if (!text.ok()) return text.status().While("{}: policy", kFailed);
  Result<Policy> policy = Policy::Parse(*text);
  if (!policy.ok())
    return InvalidArgument("{}: policy {}: {}", kFailed, options_.policy,
                           policy.status().message());
  return policy;
}

Result<Signature> Trust::Fulfils(const CallContext& cc, const Requirement& requirement,
                                 const ref::ImageRef& image,
                                 const std::vector<digest::Digest>& manifests,
                                 const std::vector<Signature>& signatures) const {
  const Verifier verifier =
      CRISP_TRY(Verifier::Make(cc, requirement, options_.temp_root, clock_.Wall()));
  std::vector<std::string> reasons;
  for (const Signature& signature : signatures) {
    if (signature.kind != verifier.kind()) continue;
    const Status status = CheckOne(cc, verifier, signature, requirement.identity, image, manifests);
    if (status.ok()) return signature;
    CRISP_TRY(cc.Check());
    reasons.emplace_back(status.message());
  }
  if (reasons.empty()) return PermissionDenied("there is no signature");
  std::string all;
  for (std::size_t i = 0; i < reasons.size(); ++i)
    all += fmt::format("{}signature {}: {}", i == 0 ? "" : "; ", i + 1, reasons[i]);
  return PermissionDenied("{:.2000}", all);
}

Result<std::vector<Signature>> Trust::Evaluate(const CallContext& cc, const Policy::Match& match,
                                               const std::optional<ref::ImageRef>& image,
                                               const std::vector<digest::Digest>& manifests,
                                               const std::vector<Signature>& signatures) const {
  std::vector<Signature> good;
  const std::string name = image ? image->ToString() : "an image without a name";
  for (const Requirement& requirement : *match.requirements) {
    if (requirement.kind == Requirement::Kind::kAccept) continue;
    Status status;
    if (requirement.kind == Requirement::Kind::kReject) {
      status = PermissionDenied("the policy rejects it");
    } else if (!image) {
      status = PermissionDenied("the policy asks for a signature");
    } else {
      Result<Signature> found = Fulfils(cc, requirement, *image, manifests, signatures);
      status = found.status();
      if (found.ok()) good.push_back(*std::move(found));
    }
    if (!status.ok()) CRISP_TRY(cc.Check());
    if (!status.ok())
      // The kubelet looks at the first word of kUnknown errors only.
      return Status(Code::kUnknown, fmt::format("{}: {} (policy scope {}): {}", kFailed, name,
                                                match.scope, status.message()));
  }
  return good;
}

Result<std::vector<Signature>> Trust::CheckPull(const CallContext& cc, const ref::ImageRef& image,
                                                const std::vector<digest::Digest>& manifests,
                                                const RepositoryReader& reader) {
  const Policy policy = CRISP_TRY(LoadPolicy());
  const Policy::Match match = policy.For(image);
  const auto asks_for = [&match](Requirement::Kind kind) {
    return std::any_of(match.requirements->begin(), match.requirements->end(),
                       [kind](const Requirement& each) { return each.kind == kind; });
  };
  std::vector<Signature> signatures;
  std::size_t bytes = 0;
  const auto add = [&](std::vector<Signature> more) -> Status {
    for (Signature& each : more) {
      bytes += each.bytes();
      signatures.push_back(std::move(each));
    }
    if (bytes <= kMaxSignatures.count()) return Status::Ok();
    return PermissionDenied("{}: {}: its signatures have more than {} bytes", kFailed,
                            image.ToString(), kMaxSignatures.count());
  };
  // A rejected image's registry is not asked for signatures.
  if (!asks_for(Requirement::Kind::kReject)) {
    const auto failed = [&image](Status status) {
      return std::move(status).While("{}: {}: find signatures", kFailed, image.ToString());
    };
    for (const digest::Digest& manifest : manifests) {
      if (asks_for(Requirement::Kind::kSignedBy)) {
        const Result<Lookaside> places = Lookaside::Load(options_.registries_dir);
        if (!places.ok()) return failed(places.status());
        Result<std::vector<Signature>> found =
            FetchSimple(cc, client_, places->For(image.Name()), image.Name(), manifest);
        if (!found.ok()) return failed(found.status());
        CRISP_TRY(add(*std::move(found)));
      }
      if (asks_for(Requirement::Kind::kSigstoreSigned)) {
        Result<std::vector<Signature>> found = FetchSigstore(cc, reader, manifest);
        if (!found.ok()) return failed(found.status());
        CRISP_TRY(add(*std::move(found)));
      }
    }
  }
  return Evaluate(cc, match, image, manifests, signatures);
}

Status Trust::CheckKept(const CallContext& cc, const std::optional<ref::ImageRef>& image,
                        const std::vector<digest::Digest>& manifests,
                        const std::vector<Signature>& signatures) {
  const Policy policy = CRISP_TRY(LoadPolicy());
  const Policy::Match match = image ? policy.For(*image) : policy.ForNameless();
  return Evaluate(cc, match, image, manifests, signatures).status();
}

}  // namespace crisp::imaged
