#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/digest/digest.h"
#include "libs/os/beneath.h"
#include "services/imaged/core/image_source.h"
#include "services/imaged/core/layer_pull.h"
#include "services/imaged/core/manifest.h"
#include "services/imaged/store/file_index.h"
#include "services/imaged/store/layer_store.h"

namespace crisp::imaged {

/// How a zstd:chunked layer is made of files that the store has and of the rest of its blob.
struct ReusePlan {
  /// A file with contents, in the order of the tar.
  struct File {
    FileDigest digest{};
    std::uint64_t size = 0;
    std::uint64_t offset = 0;  // of its frames in the blob
    std::uint64_t end = 0;
    std::optional<std::uint32_t> local;  // in locals
    std::uint64_t fetched_at = 0;        // without: where in what is fetched its frames begin
  };
  /// Contents that the store has.
  struct Local {
    std::uint32_t layer = 0;  // in layers
    std::string path;
  };
  /// Another layer, which stays as long as the lock is held.
  struct Layer {
    ChainLock lock;
    os::Beneath root;
    std::string index;  // which told of the files; where it was wrong it is deleted
  };

  std::vector<File> files;
  std::vector<Local> locals;
  std::vector<Layer> layers;
  std::vector<BlobRange> parts;  // of the blob, to be fetched in this order; first the tar-split
  std::uint64_t fetch_size = 0;  // of them
  digest::Digest tar_split;      // empty: the table does not say
  std::string toc;               // the table, as it lies in the blob
};

/// Fetches the layer's table and looks which of its files the store has. Nothing: the layer comes
/// whole, as it is no zstd:chunked one, is small, there is hardly anything of it here, its table is
/// not what it should be, or its source has no ranges. Without any index in the store nothing is
/// asked for. Only the call's own end is an error.
Result<std::optional<ReusePlan>> PlanReuse(const CallContext& cc, const Descriptor& blob,
                                           const OpenBlob& open, const LayerStore& store,
                                           const LayerLimits& limits);

/// Makes the index by which later layers find this one's files; `directory` is the layer's, `toc`
/// its table as it lies in the blob.
Status IndexFiles(std::string_view toc, const std::string& directory);

}  // namespace crisp::imaged
