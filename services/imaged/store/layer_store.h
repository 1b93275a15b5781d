#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/digest/digest.h"
#include "libs/os/unique_fd.h"
#include "services/imaged/store/layout.h"
#include "services/imaged/store/usage.h"

namespace crisp::imaged {

/// Of one chain id, over all imaged instances: who holds it alone makes or deletes the layer; while
/// others share it, nobody does.
class ChainLock {
 public:
  ChainLock() = default;

 private:
  friend class LayerStore;
  explicit ChainLock(os::UniqueFd fd) : fd_(std::move(fd)) {}
  os::UniqueFd fd_;
};

/// The directories of layers, snapshots and trash. Knows no catalogue. Any thread.
class LayerStore {
 public:
  /// Makes the tree when absent.
  static Result<LayerStore> Open(const Layout& layout);

  const Layout& layout() const { return layout_; }

  /// kUnavailable when somebody holds it.
  Result<ChainLock> TryLock(const digest::Digest& chain) const;
  /// Waits until the deadline or stop of the call.
  Result<ChainLock> Lock(const CallContext& cc, const digest::Digest& chain) const;
  /// The same for who reads the layer and needs it to stay.
  Result<ChainLock> TryShare(const digest::Digest& chain) const;
  Result<ChainLock> Share(const CallContext& cc, const digest::Digest& chain) const;

  /// A fresh staging directory for the layer, with an empty "diff" in it; its path.
  Result<std::string> Stage(const digest::Digest& chain) const;
  /// Makes one EROFS image of a staged layer's tree, which goes into the trash; what it takes on
  /// disk. Nothing, and the tree stays, where WriteErofs cannot.
  Result<std::optional<Usage>> MakeImage(const CallContext& cc, const std::string& staged) const;
  /// A finished layer in the form that it has: its image's path, else that of its tree, whether or
  /// not that is there.
  std::string PathOf(const digest::Digest& chain) const;
  /// Renames a staged layer into place. What is there already without the catalogue's knowing it is
  /// moved away. The caller holds the chain's lock.
  Status Commit(const std::string& staged, const digest::Digest& chain) const;

  /// Of what is made of a topmost layer's image (Layout::Flat), for which the layer's own lock is
  /// not enough, as pulls hold that for long. Otherwise as Lock and TryLock.
  Result<ChainLock> LockFlat(const CallContext& cc, const digest::Digest& top) const;
  Result<ChainLock> TryLockFlat(std::string_view top_chain_hex) const;

  /// Makes (or finds again) upper and work of a snapshot; the upper gets the attributes of
  /// the root directory of `root_like`, the topmost layer.
  Status MakeSnapshot(std::string_view owner, const std::string& root_like) const;

  /// Moves a file tree into the trash; where it is there. "" when it is absent.
  Result<std::string> MoveToTrash(const std::string& path) const;
  /// Moves a file tree away, to be deleted later; up to `delete_now` entries of it at once. Absent
  /// is Ok.
  Status Discard(const std::string& path, std::uint64_t delete_now = 0) const;
  /// What waits to be deleted.
  Result<std::vector<std::string>> Trash() const;
  /// Deletes at most `files` entries below a tree in the trash; true when all of it is gone.
  Result<bool> DeleteSome(const std::string& trash, std::uint64_t files) const;

  /// After this call what was written to the store before it outlives a power cut.
  Status Sync() const;

 private:
  explicit LayerStore(Layout layout) : layout_(std::move(layout)) {}
  /// `type`: F_WRLCK or F_RDLCK.
  Result<ChainLock> TryLockAs(const digest::Digest& chain, short type) const;
  static Result<ChainLock> WaitFor(const CallContext& cc,
                                   const std::function<Result<ChainLock>()>& take);
  Layout layout_;
};

}  // namespace crisp::imaged
