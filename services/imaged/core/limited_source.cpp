#include "services/imaged/core/limited_source.h"

#include "libs/base/try.h"

namespace crisp::imaged {
namespace {

class LimitedReader final : public BlobReader {
 public:
  LimitedReader(std::unique_ptr<BlobReader> reader, std::shared_ptr<RateLimit> own,
                RateLimit& shared)
      : reader_(std::move(reader)), own_(std::move(own)), shared_(shared) {}
  Result<std::size_t> Read(const CallContext& cc, std::span<char> into) override {
    const std::size_t count = CRISP_TRY(reader_->Read(cc, into));
    CRISP_TRY(own_->Pay(cc, count));
    CRISP_TRY(shared_.Pay(cc, count));
    return count;
  }
  std::optional<std::uint64_t> total() const override { return reader_->total(); }
  bool is_range() const override { return reader_->is_range(); }
  std::string version() const override { return reader_->version(); }
  std::string from() const override { return reader_->from(); }

 private:
  const std::unique_ptr<BlobReader> reader_;
  const std::shared_ptr<RateLimit> own_;
  RateLimit& shared_;
};

}  // namespace

Result<FetchedManifest> LimitedSource::Manifest(const CallContext& cc,
                                                const std::string& tag_or_digest, Bytes limit) {
  return source_->Manifest(cc, tag_or_digest, limit);
}

Result<std::string> LimitedSource::Blob(const CallContext& cc, const digest::Digest& digest,
                                        Bytes limit) {
  return source_->Blob(cc, digest, limit);
}

Result<std::unique_ptr<BlobReader>> LimitedSource::OpenBlob(const CallContext& cc,
                                                            const digest::Digest& digest,
                                                            BlobRange range) {
  std::unique_ptr<BlobReader> reader = CRISP_TRY(source_->OpenBlob(cc, digest, range));
  return std::unique_ptr<BlobReader>(
      std::make_unique<LimitedReader>(std::move(reader), own_, shared_));
}

}  // namespace crisp::imaged
