#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/cleanup.h"
#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "libs/digest/digest.h"
#include "libs/ref/ref.h"
#include "libs/sqlite/db.h"

namespace crisp::imaged {

/// An image as it is told to others.
struct ImageRecord {
  std::string id;                 // "sha256:<hex>" of the config
  std::vector<std::string> tags;  // "docker.io/library/busybox:latest"
  // "docker.io/library/busybox@sha256:…": first what references stood for, then, of indexes, what
  // was chosen from them.
  std::vector<std::string> digests;
  std::uint64_t size = 0;
  std::optional<std::int64_t> uid;
  std::string username;
  std::map<std::string, std::string> annotations;  // of the manifest that was pulled last
};

struct LayerRecord {
  digest::Digest chain;
  digest::Digest diff_id;
  std::uint64_t bytes = 0;
  std::uint64_t inodes = 0;
};

/// A layer as the store's check sees it.
struct CatalogueLayer {
  digest::Digest chain;
  std::uint64_t bytes = 0;
  std::uint64_t inodes = 0;
  std::string tree;    // TreeDigest when it was read first; "" before
  WallTime checked{};  // when it was last
};

struct NewImage {
  std::string id;
  std::string config;
  std::optional<std::int64_t> uid;
  std::string username;
  std::map<std::string, std::string> annotations;
  std::vector<digest::Digest> chain;      // lowest first
  std::vector<LayerRecord> fresh_layers;  // of those, the ones that have no row yet
  std::string tag;                        // "" for a pull by digest
  std::vector<std::string> digests;       // names
  std::string chosen;                     // the name by the manifest that an index led to; "": none
  std::string pulled_as;                  // the reference that was asked for
  std::vector<std::string> signatures;    // as trust encodes them; in place of those that an
                                          // earlier pull of the same reference brought
};

struct SnapshotRecord {
  OwnerId owner;
  std::string image_id;
  WallTime created;
};

/// What imaged knows, in SQLite: an image is in it whole or not at all, and what is not in it is
/// garbage. Shared by all instances; any thread. Two connections, each behind a mutex: questions
/// take microseconds, and do not wait for a commit that waits for the disk.
class Catalogue {
 public:
  /// `boot_id`: the machine's, as it is now. A layer's row is written before its bytes are safe
  /// from a power cut, and carries the boot id until they are: after another boot it is not
  /// trusted.
  static Result<std::unique_ptr<Catalogue>> Open(const std::string& path,
                                                 const std::string& boot_id);

  /// Every image that is not condemned, oldest first.
  Result<std::vector<ImageRecord>> List();
  /// The id of the image that a person means: id with or without "sha256:", a unique beginning of
  /// it, tag, name@digest, bare digest. Nothing when there is none; kInvalidArgument for what is no
  /// reference at all, or the beginning of several ids.
  Result<std::optional<std::string>> Resolve(std::string_view text);
  /// The names that a text may stand for, in the order to look; ref::Parse's one without it. Set
  /// before the first use.
  using Names = std::function<Result<std::vector<ref::ImageRef>>(std::string_view)>;
  void SetNames(Names names) { names_ = std::move(names); }
  /// Of what a text may stand for, that which is a name of this image; nothing when none is.
  Result<std::optional<ref::ImageRef>> NameOf(std::string_view text, const std::string& id);
  Result<std::optional<ImageRecord>> Find(const std::string& id);
  /// The config's text; kNotFound. Condemned images count too.
  Result<std::string> Config(const std::string& id);
  /// Chain ids of an image, lowest first. Condemned images count too.
  Result<std::vector<digest::Digest>> Layers(const std::string& id);

  /// Signatures of an image, as the pulls found them.
  Result<std::vector<std::string>> Signatures(const std::string& id);

  Result<bool> HasLayer(const digest::Digest& chain);
  /// Layers of a pull that did not succeed as a whole: kept for the next try until then.
  Status AddLayers(const std::vector<LayerRecord>& layers, WallTime keep_until);
  /// All or nothing. A tag that another image has moves here. kAborted: a layer that should be
  /// there was collected meanwhile.
  Status CommitImage(const NewImage& image, WallTime now);
  /// Takes all its names; while snapshots need it, it stays as condemned. Unknown is Ok. True when
  /// there was something.
  Result<bool> RemoveImage(const std::string& id);

  Result<std::optional<SnapshotRecord>> FindSnapshot(const OwnerId& owner);
  Result<std::vector<SnapshotRecord>> ListSnapshots();
  /// The rows whose owner begins with this.
  Result<std::vector<SnapshotRecord>> SnapshotsFrom(const std::string& prefix);
  /// kAlreadyExists when the owner has one; kNotFound when the image is gone meanwhile.
  Status AddSnapshot(const SnapshotRecord& snapshot);
  /// Unknown is Ok. A condemned image goes with its last snapshot.
  Status RemoveSnapshot(const OwnerId& owner);

  /// Layers that no image has and that nobody keeps for a next try.
  Result<std::vector<digest::Digest>> UnusedLayers(WallTime now);
  /// Takes the rows of those layers that no image has meanwhile, and answers which. A power cut
  /// does not bring them back: their files may be deleted.
  Result<std::vector<digest::Digest>> DropLayers(const std::vector<digest::Digest>& layers);

  /// Whether this is an image's topmost layer. Condemned images count too.
  Result<bool> IsTop(const digest::Digest& chain);

  /// Every layer, whether an image needs it or not.
  Result<std::vector<CatalogueLayer>> AllLayers();
  Status SetChecked(const digest::Digest& chain, const std::string& tree, WallTime when);
  /// Takes a layer that is damaged, with the images that need it; answers their ids. Holds as
  /// DropLayers does. kFailedPrecondition while a snapshot stands on one of them.
  Result<std::vector<std::string>> ForgetLayer(const digest::Digest& chain);
  /// kDataLoss: the database itself is damaged.
  Status CheckIntegrity();

  /// Layers whose bytes are not known to be on the disk.
  Result<std::vector<digest::Digest>> UnsyncedLayers();
  /// They are now.
  Status MarkSynced(const std::vector<digest::Digest>& layers);
  /// At start: forgets what an earlier boot did not bring to the disk, with the images and
  /// snapshots that need it (their containers ended with that boot). How many layers.
  Result<std::int64_t> DropDoubtful();

  struct Totals {
    std::uint64_t bytes = 0;
    std::uint64_t inodes = 0;
    std::int64_t images = 0;
    std::int64_t layers = 0;
    std::int64_t snapshots = 0;
  };
  Result<Totals> Sum();

 private:
  Catalogue(sqlite::Db db, sqlite::Db reader, std::string boot_id)
      : boot_id_(std::move(boot_id)), db_(std::move(db)), reader_(std::move(reader)) {}
  Result<std::vector<ImageRecord>> Select(std::string_view where, const std::string& parameter);
  Result<std::vector<ref::ImageRef>> ReadingsOf(std::string_view text) const;
  Status AddLayerRow(const LayerRecord& layer, std::int64_t keep_until);
  Status AddSignatures(const NewImage& image);
  /// What is committed while the answer lives is on the disk before the commit returns.
  Result<Cleanup> SyncEachCommit();

  const std::string boot_id_;
  Names names_;
  std::mutex mutex_;  // of what writes
  sqlite::Db db_;
  std::mutex read_mutex_;
  sqlite::Db reader_;
};

}  // namespace crisp::imaged
