#pragma once

#include <chrono>
#include <cstdint>
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
#include "services/imaged/trust/trust.h"

namespace crisp::imaged {

/// What rund mounts to get a container's root file system.
struct OverlayMount {
  std::vector<std::string> options;
  std::vector<std::string> lower_dirs;  // topmost first
  std::string upper_dir;
  std::string work_dir;
};

/// What rund mounts to see an image's files: layers one above the other, nothing to write to.
struct PreparedVolume {
  std::string image_id;
  std::vector<std::string> layers;  // topmost first; just one: to be bind-mounted
  std::vector<std::string> options;
};

struct PreparedSnapshot {
  std::string image_id;
  std::string image_ref;   // repo@digest, or the id
  std::string image_name;  // a tag, or image_ref
  std::string config;
  OverlayMount mount;
  std::string copied_root;    // vfs, btrfs: the whole tree, to be bind-mounted instead
  bool is_branch = false;     // btrfs: of which only what is changed takes space
  std::string checkpoint_of;  // the image holds a container's checkpoint: nothing is made of it
};

/// Writable snapshots of images, each held for an owner (a container's id), and views that their
/// owners only read, which are rows without directories but for vfs's copies. Any thread.
///
/// A SIGKILL in Prepare leaves a row without (all of) its directories: the next Prepare makes them.
/// One in Release leaves a row: the next Release, or Reconcile, goes on; a directory without a row
/// goes at the next start.
class Snapshots {
 public:
  enum class Driver {
    kOverlay,
    kVfs,    // a full copy for each owner: where the kernel has no overlayfs
    kBtrfs,  // a snapshot for each owner of one copy for all of an image
  };
  /// `overlay_options`: beside our own.
  Snapshots(Catalogue& catalogue, LayerStore& store, Trust& trust, Metrics& metrics, Clock& clock,
            Driver driver = Driver::kOverlay, std::vector<std::string> overlay_options = {})
      : catalogue_(catalogue),
        store_(store),
        trust_(trust),
        metrics_(metrics),
        clock_(clock),
        driver_(driver),
        overlay_options_(std::move(overlay_options)) {}

  /// Idempotent by owner. `user_specified`: the image's name as the pod's author wrote it, which
  /// the signature policy is asked about once more (kUnknown "SignatureValidationFailed:
  /// …"); where neither it nor `image` is a name of this image, every name must pass that the image
  /// has. kNotFound: no such image;
  /// kFailedPrecondition: the owner has a snapshot of another image; kInvalidArgument: an owner
  /// that is no name for a directory.
  /// Of an image that holds a checkpoint (by its annotations) there is only its name and whose it
  /// is: it is for PrepareVolume, and the owner's snapshot is that of another image.
  Result<PreparedSnapshot> Prepare(const CallContext& cc, const OwnerId& owner,
                                   std::string_view image, std::string_view user_specified = {});
  /// A read-only view, held for the owner as its snapshot is; idempotent by owner and index. Errors
  /// as Prepare.
  Result<PreparedVolume> PrepareVolume(const CallContext& cc, const OwnerId& owner,
                                       std::uint32_t index, std::string_view image,
                                       std::string_view user_specified = {});
  /// Snapshot and views. Idempotent: an unknown owner is Ok. The caller has unmounted it.
  Status Release(const CallContext& cc, const OwnerId& owner);
  struct Reconciled {
    std::vector<OwnerId> freed;
    Status failed;  // the first of those that could not be; the others are freed all the same
  };
  /// Releases what belongs to no owner in the list and is older than `grace`. An owner that is
  /// being worked on is left for the next time.
  Reconciled Reconcile(const CallContext& cc, const std::vector<OwnerId>& live,
                       std::chrono::nanoseconds grace);

 private:
  Status CheckTrust(const CallContext& cc, const std::string& id, std::string_view image,
                    std::string_view user_specified);
  /// Whose checkpoint an image holds; "" = none.
  Result<std::string> CheckpointOf(std::string_view image) const;
  /// The image that this row holds, made when it is new.
  Result<std::string> Hold(const CallContext& cc, const OwnerId& row, std::string_view image,
                           std::string_view user_specified);
  /// btrfs: what an image's layers show together, copied once; its path.
  Result<std::string> Flat(const CallContext& cc, const std::string& image,
                           const std::vector<std::string>& layers);
  /// btrfs: a snapshot of that in the owner's directory; its path.
  Result<std::string> Branch(const CallContext& cc, const OwnerId& owner, const std::string& image,
                             const std::vector<std::string>& layers);
  /// vfs: what the layers (topmost first) show together, in the row's directory; its path.
  Result<std::string> Copy(const CallContext& cc, const OwnerId& row,
                           const std::vector<std::string>& layers);
  Status ReleaseLocked(const OwnerId& row);

  Catalogue& catalogue_;
  LayerStore& store_;
  Trust& trust_;
  Metrics& metrics_;
  Clock& clock_;
  const Driver driver_;
  const std::vector<std::string> overlay_options_;
  work::LockTable owners_;
};

}  // namespace crisp::imaged
