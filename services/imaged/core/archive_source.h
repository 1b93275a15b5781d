#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libs/archive/source.h"
#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/os/unique_fd.h"
#include "services/imaged/core/image_source.h"
#include "services/imaged/store/disk_usage.h"

namespace crisp::imaged {

/// An image that an archive holds.
struct ArchivedImage {
  std::vector<std::string> names;  // as the archive has them; may be none
  digest::Digest manifest;         // of its manifest or index
};

struct ArchiveLimits {
  Bytes max_size = GiB(64);  // of all files together
  Bytes max_manifest_size = MiB(4);
  std::size_t max_files = 10'000;
};

/// A tar, compressed or not, of an OCI image layout or of what `docker save` writes, old or new.
/// Its files are kept in one file without a name, that vanishes with the object, and are known by
/// the digests that their bytes really have. For docker's form the manifests are made here.
class ArchiveSource final : public ImageSource {
 public:
  /// `spool_dir`: where there is room for the archive. `spooled` has what it takes there added, for
  /// as long as it does. kInvalidArgument: it is no image archive;
  /// kResourceExhausted: a limit, or the disk is full; the errors of `bytes` and of the tar.
  static Result<std::shared_ptr<ArchiveSource>> Read(archive::ChunkSource& bytes,
                                                     const std::string& spool_dir,
                                                     const ArchiveLimits& limits,
                                                     std::shared_ptr<ByteCount> spooled);
  ~ArchiveSource() override { *spooled_ -= end_; }

  const std::vector<ArchivedImage>& images() const { return images_; }

  Result<FetchedManifest> Manifest(const CallContext& cc, const std::string& tag_or_digest,
                                   Bytes limit) override;
  Result<std::string> Blob(const CallContext& cc, const digest::Digest& digest,
                           Bytes limit) override;
  Result<std::unique_ptr<BlobReader>> OpenBlob(const CallContext& cc, const digest::Digest& digest,
                                               BlobRange range) override;

 private:
  struct Member {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    digest::Digest digest;
  };
  class Reader;

  ArchiveSource(os::UniqueFd spool, std::shared_ptr<ByteCount> spooled)
      : spool_(std::move(spool)), spooled_(std::move(spooled)) {}
  Status Spool(archive::ChunkSource& tar_bytes, const ArchiveLimits& limits);
  Result<Member> SpoolFile(archive::ChunkSource& contents, std::uint64_t left);
  Result<const Member*> Find(const std::string& name) const;
  Result<std::string> Text(const Member& member, Bytes limit) const;
  Status ReadLayout(Bytes limit);
  Status ReadDocker(Bytes limit);

  os::UniqueFd spool_;
  const std::shared_ptr<ByteCount> spooled_;
  std::uint64_t end_ = 0;
  std::map<std::string, Member> files_;       // by name in the archive
  std::map<std::string, std::string> links_;  // symbolic and hard ones, to names
  std::map<digest::Digest, Member> blobs_;
  std::map<digest::Digest, std::string> made_;  // manifests
  std::vector<ArchivedImage> images_;
};

}  // namespace crisp::imaged
