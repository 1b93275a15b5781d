#include "services/imaged/core/snapshots.h"

#include <algorithm>
#include <array>
#include <set>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/btrfs.h"
#include "libs/os/files.h"
#include "libs/os/image_mount.h"
#include "services/imaged/store/flatten.h"

namespace crisp::imaged {
namespace {

constexpr std::size_t kMaxOwner = 128;

/// An owner becomes a directory's name.
Status CheckOwner(const OwnerId& owner) {
  const std::string& text = owner.str();
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
  if (text.empty() || text.size() > kMaxOwner || !plain || text.front() == '.')
    return InvalidArgument("the owner id \"{:.64}\" is malformed", text);
  return Status::Ok();
}

// Of a manifest: what the image holds is a checkpoint of the container of this name. The second one
// is CRI-O's own.
constexpr std::array kCheckpointAnnotations = {"org.criu.checkpoint.container.name",
                                               "io.kubernetes.cri-o.annotations.checkpoint.name"};

// Behind the owner's name in the row of a view.
constexpr std::string_view kVolume = ".volume-";

}  // namespace

Status Snapshots::CheckTrust(const CallContext& cc, const std::string& id, std::string_view image,
                             std::string_view user_specified) {
  // Each was found for a manifest that this image was pulled by.
  std::vector<Signature> signatures;
  std::vector<digest::Digest> manifests;
  for (const std::string& text : CRISP_TRY(catalogue_.Signatures(id))) {
    signatures.push_back(CRISP_TRY(DecodeSignature(text)));
    manifests.push_back(signatures.back().manifest);
  }
  for (const std::string_view given : {user_specified, image})
    if (const auto name = CRISP_TRY(catalogue_.NameOf(given, id)))
      return trust_.CheckKept(cc, name, manifests, signatures);
  // Whoever names it by its id, or by a name that another image has by now, must not choose the
  // policy.
  std::vector<std::string> names;
  if (const std::optional<ImageRecord> record = CRISP_TRY(catalogue_.Find(id))) {
    names = record->tags;
    names.insert(names.end(), record->digests.begin(), record->digests.end());
  }
  for (const std::string& text : names) {
    const ref::ImageRef name = CRISP_TRY(ref::Parse(text));
    CRISP_TRY(trust_.CheckKept(cc, name, manifests, signatures));
  }
  if (names.empty()) return trust_.CheckKept(cc, std::nullopt, manifests, signatures);
  return Status::Ok();
}

Result<PreparedSnapshot> Snapshots::Prepare(const CallContext& cc, const OwnerId& owner,
                                            std::string_view image,
                                            std::string_view user_specified) {
  CRISP_TRY(CheckOwner(owner));
  const work::LockTable::Held held = CRISP_TRY(owners_.Lock(cc, owner.str()));
  PreparedSnapshot snapshot;
  snapshot.checkpoint_of = CRISP_TRY(CheckpointOf(image));
  if (!snapshot.checkpoint_of.empty()) return snapshot;
  const std::string id = CRISP_TRY(Hold(cc, owner, image, user_specified));

  const Layout& layout = store_.layout();
  snapshot.image_id = id;
  snapshot.config = CRISP_TRY(catalogue_.Config(id));
  const std::optional<ImageRecord> record = CRISP_TRY(catalogue_.Find(id));
  snapshot.image_ref = record && !record->digests.empty() ? record->digests.front() : id;
  snapshot.image_name = record && !record->tags.empty() ? record->tags.front() : snapshot.image_ref;
  OverlayMount& mount = snapshot.mount;
  for (const digest::Digest& chain : CRISP_TRY(catalogue_.Layers(id)))
    mount.lower_dirs.insert(mount.lower_dirs.begin(), store_.PathOf(chain));
  if (mount.lower_dirs.empty()) mount.lower_dirs.push_back(layout.Empty());
  // userxattr: our opaque marks are user.overlay.*. volatile: a container's own files need not
  // outlive a power cut, and unmounting never syncs the whole file system.
  mount.options = {"userxattr", "volatile", "index=off"};
  mount.options.insert(mount.options.end(), overlay_options_.begin(), overlay_options_.end());
  mount.upper_dir = layout.Snapshot(owner.str()) + "/upper";
  mount.work_dir = layout.Snapshot(owner.str()) + "/work";
  CRISP_TRY(store_.MakeSnapshot(owner.str(), mount.lower_dirs.front()));
  if (driver_ == Driver::kVfs) snapshot.copied_root = CRISP_TRY(Copy(cc, owner, mount.lower_dirs));
  if (driver_ == Driver::kBtrfs)
    snapshot.copied_root = CRISP_TRY(Branch(cc, owner, id, mount.lower_dirs));
  snapshot.is_branch = driver_ == Driver::kBtrfs;
  return snapshot;
}

Result<std::string> Snapshots::CheckpointOf(std::string_view image) const {
  const std::optional<std::string> id = CRISP_TRY(catalogue_.Resolve(image));
  if (!id) return "";
  const std::optional<ImageRecord> record = CRISP_TRY(catalogue_.Find(*id));
  if (!record) return "";
  for (const char* annotation : kCheckpointAnnotations) {
    const auto found = record->annotations.find(annotation);
    if (found != record->annotations.end() && !found->second.empty()) return found->second;
  }
  return "";
}

Result<std::string> Snapshots::Flat(const CallContext& cc, const std::string& image,
                                    const std::vector<std::string>& layers) {
  const std::vector<digest::Digest> chain = CRISP_TRY(catalogue_.Layers(image));
  if (chain.empty()) return store_.layout().Empty();
  std::string flat = store_.layout().Flat(chain.back().hex());
  const ChainLock lock = CRISP_TRY(store_.LockFlat(cc, chain.back()));
  if (os::Exists(flat)) return flat;
  // Renamed once whole, as in Copy.
  const std::string partial = flat + ".partial";
  CRISP_TRY(store_.Discard(partial));
  CRISP_TRY(os::MakeDirs(store_.layout().Flats(), 0755));
  CRISP_TRY(os::MakeSubvolume(partial));
  CRISP_TRY(Flatten(cc, layers, partial));
  CRISP_TRY(os::Rename(partial, flat));
  return flat;
}

Result<std::string> Snapshots::Branch(const CallContext& cc, const OwnerId& owner,
                                      const std::string& image,
                                      const std::vector<std::string>& layers) {
  std::string root = store_.layout().Snapshot(owner.str()) + "/rootfs";
  if (os::Exists(root)) return root;
  const std::string flat = CRISP_TRY(Flat(cc, image, layers));
  // An image without layers has none to be branched from.
  if (flat == store_.layout().Empty()) {
    CRISP_TRY(os::MakeSubvolume(root));
  } else {
    CRISP_TRY(os::SnapshotSubvolume(flat, root));
  }
  return root;
}

Result<std::string> Snapshots::Copy(const CallContext& cc, const OwnerId& row,
                                    const std::vector<std::string>& layers) {
  const std::string root = store_.layout().Snapshot(row.str()) + "/rootfs";
  if (os::Exists(root)) return root;
  // Renamed once whole: what a SIGKILL leaves of a copy is made anew.
  const std::string partial = root + ".partial";
  CRISP_TRY(os::RemoveTree(partial));
  CRISP_TRY(os::MakeDirs(partial));
  CRISP_TRY(Flatten(cc, layers, partial));
  CRISP_TRY(os::Rename(partial, root));
  return root;
}

Result<std::string> Snapshots::Hold(const CallContext& cc, const OwnerId& row,
                                    std::string_view image, std::string_view user_specified) {
  const std::optional<SnapshotRecord> existing = CRISP_TRY(catalogue_.FindSnapshot(row));
  const std::optional<std::string> resolved = CRISP_TRY(catalogue_.Resolve(image));
  if (existing) {
    // The image may have lost the name, or be condemned: what the owner has holds.
    const std::string& id = existing->image_id;
    const bool same = resolved ? *resolved == id : image == id;
    if (!same) return FailedPrecondition("{} has a snapshot of {}, not of {}", row, id, image);
    return id;
  }
  if (!resolved) return NotFound("no image {}", image);
  CRISP_TRY(CheckTrust(cc, *resolved, image, user_specified));
  CRISP_TRY(catalogue_.AddSnapshot({row, *resolved, clock_.Wall()}));
  metrics_.SnapshotMade();
  return *resolved;
}

Result<PreparedVolume> Snapshots::PrepareVolume(const CallContext& cc, const OwnerId& owner,
                                                std::uint32_t index, std::string_view image,
                                                std::string_view user_specified) {
  CRISP_TRY(CheckOwner(owner));
  const work::LockTable::Held held = CRISP_TRY(owners_.Lock(cc, owner.str()));
  PreparedVolume volume;
  const OwnerId row(fmt::format("{}{}{}", owner, kVolume, index));
  volume.image_id = CRISP_TRY(Hold(cc, row, image, user_specified));
  const Layout& layout = store_.layout();
  for (const digest::Digest& chain : CRISP_TRY(catalogue_.Layers(volume.image_id)))
    volume.layers.insert(volume.layers.begin(), store_.PathOf(chain));
  if (driver_ == Driver::kBtrfs) {
    volume.layers = {CRISP_TRY(Flat(cc, volume.image_id, volume.layers))};
    volume.options = {"ro"};
    return volume;
  }
  if (driver_ == Driver::kVfs) {
    // A tree alone is bound as it is; an image cannot be.
    const bool several = volume.layers.size() > 1;
    if (several || (!volume.layers.empty() && os::IsImage(volume.layers.front())))
      volume.layers = {CRISP_TRY(Copy(cc, row, volume.layers))};
    if (volume.layers.empty()) volume.layers.push_back(layout.Empty());
    volume.options = {"ro"};
    return volume;
  }
  // The kernel wants two layers at least where nothing is written; also a single one may have marks
  // of deletion that only an overlay takes away.
  if (volume.layers.size() < 2) volume.layers.push_back(layout.Empty());
  volume.options = {"userxattr", "ro"};
  volume.options.insert(volume.options.end(), overlay_options_.begin(), overlay_options_.end());
  return volume;
}

Status Snapshots::ReleaseLocked(const OwnerId& row) {
  CRISP_TRY(store_.Discard(store_.layout().Snapshot(row.str())));
  return catalogue_.RemoveSnapshot(row);
}

Status Snapshots::Release(const CallContext& cc, const OwnerId& owner) {
  CRISP_TRY(CheckOwner(owner));
  const work::LockTable::Held held = CRISP_TRY(owners_.Lock(cc, owner.str()));
  for (const SnapshotRecord& volume :
       CRISP_TRY(catalogue_.SnapshotsFrom(owner.str() + std::string(kVolume)))) {
    CRISP_TRY(ReleaseLocked(volume.owner));
    metrics_.SnapshotReleased();
  }
  if (!CRISP_TRY(catalogue_.FindSnapshot(owner))) return Status::Ok();
  CRISP_TRY(ReleaseLocked(owner));
  metrics_.SnapshotReleased();
  return Status::Ok();
}

Snapshots::Reconciled Snapshots::Reconcile(const CallContext& cc, const std::vector<OwnerId>& live,
                                           std::chrono::nanoseconds grace) {
  const std::set<OwnerId> living(live.begin(), live.end());
  const WallTime before = clock_.Wall() - grace;
  Reconciled done;
  const Result<std::vector<SnapshotRecord>> snapshots = catalogue_.ListSnapshots();
  if (!snapshots.ok()) return {{}, snapshots.status()};
  for (const SnapshotRecord& snapshot : *snapshots) {
    const std::string& row = snapshot.owner.str();
    // An image volume's row is under the lock of whom it is for.
    const OwnerId owner(row.substr(0, row.find(kVolume)));
    if (living.contains(owner) || snapshot.created > before) continue;
    if (Status over = cc.Check(); !over.ok()) {
      if (done.failed.ok()) done.failed = std::move(over);
      break;
    }
    const Result<work::LockTable::Held> held = owners_.TryLock(owner.str());
    if (!held.ok()) continue;
    Status released = [&]() -> Status {
      // It may have gone, and another come, while somebody else held that.
      const auto now = CRISP_TRY(catalogue_.FindSnapshot(snapshot.owner));
      if (!now || now->created > before) return Aborted("not the one that was seen");
      return ReleaseLocked(snapshot.owner);
    }();
    if (released.ok()) {
      done.freed.push_back(snapshot.owner);
      continue;
    }
    if (released.code() == Code::kAborted) continue;
    log::Error("free an orphan", {{"owner", row}, {"error", released.message()}});
    if (done.failed.ok()) done.failed = std::move(released);
  }
  metrics_.OrphansFreed(done.freed.size());
  return done;
}

}  // namespace crisp::imaged
