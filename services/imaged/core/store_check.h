#pragma once

#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "services/imaged/store/catalogue.h"
#include "services/imaged/store/layer_store.h"

namespace crisp::imaged {

struct CheckOptions {
  bool contents = true;  // read every file; else sizes and counts only
  bool repair = false;   // nobody else may use the store
};

struct CheckReport {
  std::int64_t images = 0;
  std::int64_t layers = 0;
  std::vector<std::string> problems;
  std::vector<std::string> repaired;
};

/// Compares the catalogue with what is on the disk: each layer is there, takes as much as when it
/// was unpacked, and (contents) reads as when it was read first. `repair`: damaged layers are
/// forgotten with the images that need them, so that the next pull brings them anew, unless a
/// container still stands on them; files that the catalogue does not know are deleted. Nothing that
/// is sound is ever touched.
Result<CheckReport> CheckStore(const CallContext& cc, Catalogue& catalogue, LayerStore& store,
                               Clock& clock, const CheckOptions& options);

/// Forgets and deletes every image and layer. kFailedPrecondition while containers have snapshots.
Status WipeStore(const CallContext& cc, Catalogue& catalogue, LayerStore& store);

/// Looks at one layer, the one that was not looked at for longest; "" or what is wrong with it.
/// Reads at most `bytes_per_second`. kDeadlineExceeded: it is too large for the call's time; the
/// next call looks at another.
Result<std::string> VerifyOne(const CallContext& cc, Catalogue& catalogue, LayerStore& store,
                              Clock& clock, std::uint64_t bytes_per_second);

}  // namespace crisp::imaged
