#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/digest/digest.h"
#include "services/imaged/core/image_source.h"
#include "services/imaged/core/manifest.h"
#include "services/imaged/core/pipeline.h"
#include "services/imaged/core/unpack.h"

namespace crisp::imaged {

/// How far one layer is; written by its pull, read by whoever shows progress.
struct LayerProgress {
  enum class State { kWaiting, kDownloading, kUnpacked, kPresent };
  std::string digest;
  std::uint64_t size = 0;
  std::atomic<std::uint64_t> done = 0;
  std::atomic<State> state = State::kWaiting;
};

/// Opens the blob's bytes from an offset on (ImageSource::OpenBlob).
using OpenBlob =
    std::function<Result<std::unique_ptr<BlobReader>>(const CallContext&, std::uint64_t offset)>;

/// Streams one blob into `unpacker`: socket and SHA-256 | inflate | SHA-256 | untar, a thread each,
/// the last on the caller's. A broken connection goes on from the last good byte, a few times. Ok
/// once all is unpacked and both digests match (kDataLoss names the blob and both digests else).
/// Finish() of the unpacker is the caller's.
Status PullLayer(const CallContext& cc, const Descriptor& blob, const digest::Digest& diff_id,
                 const OpenBlob& open, Unpacker& unpacker, BufferPool& pool, Bytes max_size,
                 LayerProgress& progress);

}  // namespace crisp::imaged
