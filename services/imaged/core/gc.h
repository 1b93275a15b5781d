#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/guarded.h"
#include "libs/base/result.h"
#include "services/imaged/metrics.h"
#include "services/imaged/store/catalogue.h"
#include "services/imaged/store/layer_store.h"

namespace crisp::imaged {

struct GcOptions {
  /// Trash does not wait for pulls longer than this,
  std::chrono::nanoseconds patience = std::chrono::minutes(5);
  /// nor while so little of a file system (space or inodes) is free.
  unsigned low_percent = 20;
};

/// Finds what nothing needs, moves it to the trash at once, and empties the trash slowly: many
/// deletions in a row make a file system slow for minutes, so they wait while images are pulled.
///
/// What a SIGKILL or a power cut leaves behind, and what Recover does with it:
///
///     staging/<chain>.<x>        a pull was under way: trash, unless another instance holds the
///                                chain's lock
///     layers/<chain>, no row     renamed but not committed (its bytes may not be on disk): trash,
///                                likewise
///     a row, no layers/<chain>   forgotten, with the images that need it: the next pull brings it
///     snapshots/<owner>, no row  a release was under way: trash
///     gpg-<x>                    a signature was being checked: deleted, once it is old
///     trash/<x>                  deleted when it is quiet
///
/// What cannot be deleted is told of and passed over; the first such error is the call's.
class Gc {
 public:
  /// `quiet`: no pull is or was just under way.
  Gc(Catalogue& catalogue, LayerStore& store, Metrics& metrics, Clock& clock,
     std::function<bool()> quiet, const GcOptions& options = {})
      : catalogue_(catalogue),
        store_(store),
        metrics_(metrics),
        clock_(clock),
        quiet_(std::move(quiet)),
        options_(options) {}

  /// At start, before anything is served.
  Status Recover();
  /// Brings fresh layers to the disk (one syncfs for all) and lets the catalogue trust them from
  /// then on. Off the path of the pulls, which need not wait for it.
  Status SyncLayers();
  /// Moves the layers that no image needs to the trash. Those of a pull that failed lately are kept
  /// for a while: its next try takes them.
  Status Collect();
  /// Deletes for a while, with pauses; true when the trash is empty. Waits for pulls to end, within
  /// the bounds of its options.
  Result<bool> EmptyTrash(const CallContext& cc);
  /// Collects those of `layers` that no image needs and deletes them, and only them, without regard
  /// to pulls, until the call's end: for who waits for the space. True when all of them are gone or
  /// needed; else EmptyTrash goes on.
  Result<bool> FreeNow(const CallContext& cc, const std::vector<digest::Digest>& layers);
  /// Homes of gpg that nobody removed.
  Status DiscardOldHomes();

 private:
  Status ForgetMissing();
  Status CollectSome(const std::vector<digest::Digest>& unused, std::vector<std::string>& trash);
  bool MayDelete();
  bool IsLowOnSpace() const;
  Status DiscardFlats(bool partial);
  Status DiscardUnknown(const std::string& directory, bool staging);

  Catalogue& catalogue_;
  LayerStore& store_;
  Metrics& metrics_;
  Clock& clock_;
  std::function<bool()> quiet_;
  const GcOptions options_;
  Guarded<std::optional<SteadyTime>> waiting_since_;  // for pulls to end
};

}  // namespace crisp::imaged
