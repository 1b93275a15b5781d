#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/digest/digest.h"
#include "libs/http/client.h"
#include "libs/ref/ref.h"
#include "services/imaged/core/image_source.h"
#include "services/imaged/registry/auth.h"
#include "services/imaged/registry/hosts.h"

namespace crisp::imaged {

/// One repository for one pull, at all places that the node's configuration has for it: asked in
/// their order, each with its own credentials, until one answers. Any thread. Errors name each
/// endpoint with its reason and where its credentials came from, and have the code of the last one,
/// the registry itself: kNotFound names what is missing, kUnauthenticated / kPermissionDenied,
/// kUnknown ("RegistryUnavailable: …") when it cannot be reached or answers with errors beyond
/// the retries. 429 and 5xx are tried again with back-off.
class RegistryClient final : public ImageSource {
 public:
  static Result<std::unique_ptr<RegistryClient>> Open(http::Client& client, Hosts& hosts,
                                                      const ref::ImageRef& image,
                                                      Credentials credentials);
  ~RegistryClient() override;

  Result<FetchedManifest> Manifest(const CallContext& cc, const std::string& tag_or_digest,
                                   Bytes limit) override;
  Result<std::string> Blob(const CallContext& cc, const digest::Digest& digest,
                           Bytes limit) override;
  /// By a Range request unless all of it is asked for.
  Result<std::unique_ptr<BlobReader>> OpenBlob(const CallContext& cc, const digest::Digest& digest,
                                               BlobRange range) override;

 private:
  class Source;

  RegistryClient(const ref::ImageRef& image, std::vector<std::unique_ptr<Source>> sources);
  /// Asks one source after another: those that failed before in this pull come last.
  /// `optional`: that it is not there says nothing of what a source has else.
  template <typename T>
  Result<T> Ask(const CallContext& cc, bool by_digest,
                const std::function<Result<T>(Source&)>& question, bool optional = false);
  Status Failure(const std::vector<std::pair<const Source*, Status>>& answers) const;

  const std::string image_;  // as errors name it
  const std::string tag_;
  const std::vector<std::unique_ptr<Source>> sources_;
};

}  // namespace crisp::imaged
