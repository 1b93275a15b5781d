#pragma once

#include <cstdint>
#include <vector>

#include "services/imaged/core/image_source.h"
#include "services/imaged/core/ranged_fetch.h"

namespace crisp::imaged {

/// Parts of a blob, one after the other, as if they were a blob of their own: it can be opened
/// anywhere, and its readers ask for part by part. `open` and its source are the real blob's, of
/// `blob_size` bytes; both must outlive the answer. kDataLoss: the source has no ranges, or a blob
/// of another size.
OpenBlob Gather(std::vector<BlobRange> parts, std::uint64_t blob_size, const OpenBlob& open);

}  // namespace crisp::imaged
