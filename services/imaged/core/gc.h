#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/status.h"
#include "services/imaged/metrics.h"
#include "services/imaged/store/catalogue.h"
#include "services/imaged/store/layer_store.h"

namespace crisp::imaged {

/// Finds what nothing needs, moves it to the trash at once, and empties the trash slowly: many
/// deletions in a row make a file system slow for minutes, so they wait while images are pulled.
///
/// What a SIGKILL leaves behind, and what Recover does with it:
///   staging/<chain>.<x>      a pull was under way: trash, unless another instance holds the
///   chain's lock layers/<chain>, no row   renamed but not committed (its bytes may not be on
///   disk): trash, likewise snapshots/<owner>, no row  a release was under way: trash trash/<x>
///   deleted when it is quiet
class Gc {
 public:
  /// `quiet`: no pull is or was just under way.
  Gc(Catalogue& catalogue, LayerStore& store, Metrics& metrics, Clock& clock,
     std::function<bool()> quiet)
      : catalogue_(catalogue),
        store_(store),
        metrics_(metrics),
        clock_(clock),
        quiet_(std::move(quiet)) {}

  /// At start, before anything is served.
  Status Recover();
  /// Brings fresh layers to the disk (one syncfs for all) and lets the catalogue trust them from
  /// then on. Off the path of the pulls, which need not wait for it.
  Status SyncLayers();
  /// Moves the layers that no image needs to the trash. Those of a pull that failed lately are kept
  /// for a while: its next try takes them.
  Status Collect();
  /// Deletes for a while, with pauses; true when the trash is empty.
  Result<bool> EmptyTrash(const CallContext& cc);

 private:
  Status DiscardOldHomes();
  Status DiscardUnknown(const std::string& directory, bool staging);

  Catalogue& catalogue_;
  LayerStore& store_;
  Metrics& metrics_;
  Clock& clock_;
  std::function<bool()> quiet_;
};

}  // namespace crisp::imaged
