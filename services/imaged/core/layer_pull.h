#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/guarded.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/digest/digest.h"
#include "services/imaged/core/image_source.h"
#include "services/imaged/core/limits.h"
#include "services/imaged/core/manifest.h"
#include "services/imaged/core/pipeline.h"
#include "services/imaged/core/ranged_fetch.h"
#include "services/imaged/core/unpack.h"
#include "services/imaged/metrics.h"

namespace crisp::imaged {

/// How far one layer is; written by its pull, read by whoever shows progress.
struct LayerProgress {
  enum class State { kWaiting, kDownloading, kUnpacked, kPresent };
  std::string digest;
  std::uint64_t size = 0;
  std::atomic<std::uint64_t> done = 0;    // bytes of the blob that have come
  std::atomic<std::uint64_t> spared = 0;  // those that need not: their files are here
  std::atomic<State> state = State::kWaiting;
  std::atomic<SteadyTime> began = SteadyTime();  // the download
  std::atomic<SteadyTime> last = SteadyTime();   // that bytes have come
  Guarded<std::string> from;                     // the registry; "" as long as nobody has answered

  /// "3100 of 400000 bytes from quay.io:443, 120 bytes/s, nothing for 9.1 s"; "" when that says
  /// nothing.
  std::string HowFar() const;
};

/// What a node's layers share, and the bounds of each.
struct LayerLimits {
  BufferPool& buffers;
  Slots& connections;                             // of the node
  Spread spread;                                  // of one layer
  Bytes ranged_from;                              // smaller layers take one connection
  Bytes max_size;                                 // unpacked
  Expansion expansion;                            // of its size, when it is unpacked
  std::chrono::nanoseconds outage;                // for so long nobody may answer
  std::function<void(std::uint64_t)> on_fetched;  // told of bytes as they come, on any thread
};

struct ReusePlan;

/// A layer to be pulled.
struct WantedLayer {
  const Descriptor& blob;
  const digest::Digest& diff_id;
  const OpenBlob& open;
  const ReusePlan* reuse = nullptr;  // null: the blob comes whole
};

/// What a layer's pull tells, whatever became of it.
struct LayerNews {
  StageTimes times;
  std::string toc;  // of a zstd:chunked blob that came whole: its table of files
};

/// Streams one blob into `unpacker`: socket and SHA-256 | inflate | SHA-256 | untar, a thread each,
/// the last on the caller's. A large blob comes in ranges over several connections where its source
/// has ranges. A broken connection goes on from the last good byte, a few times; a source that does
/// not answer meanwhile is asked again until `outage` is over, and what there is waits for it. Ok
/// once all is unpacked and both digests match (kDataLoss names the blob and both digests else).
/// A blob that is a file's contents (Descriptor::file) is unpacked as the tar of that file; its own
/// digest is then all that is checked. With a plan (ReusePlan) only parts of the blob come, and
/// inflate becomes: put the tar together; the diff id is then all that is checked, and any failure
/// may be the plan's: MayComeWhole says whether to try without. Finish() of the unpacker is the
/// caller's.
Status PullLayer(const CallContext& cc, const WantedLayer& layer, Unpacker& unpacker,
                 const LayerLimits& limits, LayerProgress& progress, LayerNews& news);

/// True for a failed pull by a plan that the whole blob may save: not when the call has ended or
/// nobody answers.
bool MayComeWhole(const CallContext& cc, const Status& failure);

}  // namespace crisp::imaged
