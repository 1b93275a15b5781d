#pragma once

#include <memory>
#include <string>

#include "services/imaged/core/image_source.h"
#include "services/imaged/core/limits.h"

namespace crisp::imaged {

/// A source whose layers come no faster than its own rate and one that it shares with others allow.
/// Manifests and other small blobs do not wait. Any thread.
class LimitedSource final : public ImageSource {
 public:
  /// `shared` must outlive it and its readers.
  LimitedSource(std::unique_ptr<ImageSource> source, Bytes per_second, RateLimit& shared,
                Clock& clock)
      : source_(std::move(source)),
        own_(std::make_shared<RateLimit>(per_second, clock)),
        shared_(shared) {}

  Result<FetchedManifest> Manifest(const CallContext& cc, const std::string& tag_or_digest,
                                   Bytes limit) override;
  Result<std::string> Blob(const CallContext& cc, const digest::Digest& digest,
                           Bytes limit) override;
  Result<std::unique_ptr<BlobReader>> OpenBlob(const CallContext& cc, const digest::Digest& digest,
                                               BlobRange range) override;

 private:
  const std::unique_ptr<ImageSource> source_;
  const std::shared_ptr<RateLimit> own_;
  RateLimit& shared_;
};

}  // namespace crisp::imaged
