#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "libs/work/lock_table.h"
#include "services/imaged/metrics.h"
#include "services/imaged/store/catalogue.h"
#include "services/imaged/store/layer_store.h"

namespace crisp::imaged {

/// What rund mounts to get a container's root file system.
struct OverlayMount {
  std::vector<std::string> options;
  std::vector<std::string> lower_dirs;  // topmost first
  std::string upper_dir;
  std::string work_dir;
};

struct PreparedSnapshot {
  std::string image_id;
  std::string image_ref;   // repo@digest, or the id
  std::string image_name;  // a tag, or image_ref
  std::string config;
  OverlayMount mount;
};

/// Writable snapshots of images, each held for an owner (a container's id). Any thread.
///
/// A SIGKILL in Prepare leaves a row without (all of) its directories: the next Prepare makes them.
/// One in Release leaves a row: the next Release, or Reconcile, goes on; a directory without a row
/// goes at the next start.
class Snapshots {
 public:
  Snapshots(Catalogue& catalogue, LayerStore& store, Metrics& metrics, Clock& clock)
      : catalogue_(catalogue), store_(store), metrics_(metrics), clock_(clock) {}

  /// Idempotent by owner. kNotFound: no such image; kFailedPrecondition: the owner has a snapshot
  /// of another image; kInvalidArgument: an owner that is no name for a directory.
  Result<PreparedSnapshot> Prepare(const CallContext& cc, const OwnerId& owner,
                                   std::string_view image);
  /// Idempotent: an unknown owner is Ok. The caller has unmounted it.
  Status Release(const CallContext& cc, const OwnerId& owner);
  /// Releases what belongs to no owner in the list and is older than `grace`; says which.
  Result<std::vector<OwnerId>> Reconcile(const CallContext& cc, const std::vector<OwnerId>& live,
                                         std::chrono::nanoseconds grace);

 private:
  Status ReleaseLocked(const OwnerId& owner);

  Catalogue& catalogue_;
  LayerStore& store_;
  Metrics& metrics_;
  Clock& clock_;
  work::LockTable owners_;
};

}  // namespace crisp::imaged
