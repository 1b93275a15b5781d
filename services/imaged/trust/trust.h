#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "libs/http/client.h"
#include "libs/ref/ref.h"
#include "services/imaged/core/policy.h"
#include "services/imaged/trust/signature.h"

namespace crisp::imaged {

struct TrustOptions {
  std::string policy;  // containers-policy.json(5); read anew for each decision
  bool policy_may_be_absent = true;
  std::string registries_dir;  // containers-registries.d(5)
  std::string temp_root;       // for gpg's home
};

/// Decides by policy.json which images may be pulled and which may become containers. Any thread.
/// Errors of its checks start with "SignatureValidationFailed: " and name the image, the scope that
/// decided and what is wrong with each signature: kUnknown, for the kubelet's sake;
/// kInvalidArgument when the policy itself cannot be read (nothing is trusted then).
class Trust {
 public:
  Trust(TrustOptions options, http::Client& client, Clock& clock)
      : options_(std::move(options)), client_(client), clock_(clock) {}

  /// Before an image is pulled. `manifests`: the digests of what the name stood for and of what was
  /// chosen from it; a signature of either is one. Answers the signatures that the decision rests
  /// on, to be kept for CheckKept.
  Result<std::vector<Signature>> CheckPull(const CallContext& cc, const ref::ImageRef& image,
                                           const std::vector<digest::Digest>& manifests,
                                           const RepositoryReader& reader);
  /// Before an image becomes a container, without asking anybody: the policy may be another by now.
  /// No image name: only a default that accepts anything lets it pass.
  Status CheckKept(const CallContext& cc, const std::optional<ref::ImageRef>& image,
                   const std::vector<digest::Digest>& manifests,
                   const std::vector<Signature>& signatures);

 private:
  Result<Policy> LoadPolicy();
  /// The signatures that fulfil the requirements.
  Result<std::vector<Signature>> Evaluate(const CallContext& cc, const Policy::Match& match,
                                          const std::optional<ref::ImageRef>& image,
                                          const std::vector<digest::Digest>& manifests,
                                          const std::vector<Signature>& signatures) const;
  Result<Signature> Fulfils(const CallContext& cc, const Requirement& requirement,
                            const ref::ImageRef& image,
                            const std::vector<digest::Digest>& manifests,
                            const std::vector<Signature>& signatures) const;

  const TrustOptions options_;
  http::Client& client_;
  Clock& clock_;  // when certificates must be valid
  std::atomic<bool> told_absent_ = false;
};

}  // namespace crisp::imaged
