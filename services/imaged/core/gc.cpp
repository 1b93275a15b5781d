#include "services/imaged/core/gc.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/work/pause.h"

namespace crisp::imaged {
namespace {

constexpr std::uint64_t kBatch = 256;  // files between two pauses
constexpr auto kPause = std::chrono::milliseconds(20);
constexpr auto kOldHome = std::chrono::minutes(10);
constexpr int kMaxBatches = 500;    // of one call
constexpr std::size_t kLocks = 64;  // held at once: a descriptor each

/// Tells of a failure that others are not held up by; keeps the first.
void Note(const Status& status, std::string_view what, Status& first) {
  if (status.ok()) return;
  log::Error(what, {{"error", status.message()}});
  if (first.ok()) first = status;
}

}  // namespace

Status Gc::DiscardUnknown(const std::string& directory, bool staging) {
  for (const std::string& name : CRISP_TRY(os::ListDir(directory))) {
    const std::string path = directory + "/" + name;
    const Result<digest::Digest> chain = digest::Digest::Parse("sha256:" + name.substr(0, 64));
    if (!chain.ok()) {
      CRISP_TRY(store_.Discard(path));
      continue;
    }
    const Result<ChainLock> lock = store_.TryLock(*chain);
    if (!lock.ok()) {
      if (lock.code() != Code::kUnavailable) return lock.status();
      continue;  // another instance is at it
    }
    if (!staging && CRISP_TRY(catalogue_.HasLayer(*chain))) continue;
    log::Info("garbage of an interrupted pull found", {{"path", path}});
    CRISP_TRY(store_.Discard(path));
  }
  return Status::Ok();
}

/// A younger one may be at work, of this instance or another.
Status Gc::DiscardOldHomes() {
  for (const std::string& name : CRISP_TRY(os::ListDir(store_.layout().root()))) {
    const std::string path = store_.layout().root() + "/" + name;
    struct stat info {};
    if (!name.starts_with("gpg-") || ::stat(path.c_str(), &info) != 0) continue;
    const WallTime made{std::chrono::seconds(info.st_mtim.tv_sec)};
    if (clock_.Wall() - made > kOldHome) CRISP_TRY(os::RemoveTree(path));
  }
  return Status::Ok();
}

Status Gc::ForgetMissing() {
  for (const CatalogueLayer& layer : CRISP_TRY(catalogue_.AllLayers())) {
    const auto is_there = [this, &layer] { return os::Exists(store_.PathOf(layer.chain)); };
    if (is_there()) continue;
    // Looked at again with the lock: another instance may have collected it, and fetched it anew.
    const Result<ChainLock> lock = store_.TryLock(layer.chain);
    if (!lock.ok() || is_there()) continue;
    const Result<std::vector<std::string>> images = catalogue_.ForgetLayer(layer.chain);
    if (!images.ok()) {
      log::Error("a layer is not there",
                 {{"chain", layer.chain.str()}, {"kept because", images.status().message()}});
      continue;
    }
    log::Warn("a layer is not there: forgotten, with its images",
              {{"chain", layer.chain.str()}, {"images", images->size()}});
  }
  return Status::Ok();
}

/// What no image shows any more of all that was made once for an image. With `partial` also what
/// was being made when a process ended.
Status Gc::DiscardFlats(bool partial) {
  const Result<std::vector<std::string>> names = os::ListDir(store_.layout().Flats());
  if (names.code() == Code::kNotFound) return Status::Ok();
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    const std::string hex = name.substr(0, name.find('.'));
    const Result<digest::Digest> top = digest::Digest::Parse("sha256:" + hex);
    const Result<ChainLock> lock = store_.TryLockFlat(hex);
    if (!lock.ok()) continue;  // it is being made
    const bool whole = hex == name;
    if (whole && top.ok() && CRISP_TRY(catalogue_.IsTop(*top))) continue;
    if (whole || partial) CRISP_TRY(store_.Discard(store_.layout().Flat(name)));
  }
  return Status::Ok();
}

Status Gc::Recover() {
  const Layout& layout = store_.layout();
  CRISP_TRY(DiscardOldHomes());
  const std::int64_t doubtful = CRISP_TRY(catalogue_.DropDoubtful());
  if (doubtful > 0)
    log::Warn("layers were not on the disk when the machine went down: forgotten",
              {{"layers", doubtful}});
  CRISP_TRY(ForgetMissing());
  CRISP_TRY(DiscardUnknown(layout.Staging(), true));
  CRISP_TRY(DiscardUnknown(layout.Layers(), false));
  CRISP_TRY(DiscardFlats(true));
  for (const std::string& owner : CRISP_TRY(os::ListDir(layout.Snapshots())))
    if (!CRISP_TRY(catalogue_.FindSnapshot(OwnerId(owner))))
      CRISP_TRY(store_.Discard(layout.Snapshot(owner)));
  return Status::Ok();
}

Status Gc::SyncLayers() {
  const std::vector<digest::Digest> unsynced = CRISP_TRY(catalogue_.UnsyncedLayers());
  if (unsynced.empty()) return Status::Ok();
  CRISP_TRY(store_.Sync());
  return catalogue_.MarkSynced(unsynced);
}

/// Those of `unused` that nobody works on and that are still unused; where they are now is added to
/// `trash`.
Status Gc::CollectSome(const std::vector<digest::Digest>& unused, std::vector<std::string>& trash) {
  Status first;
  for (std::size_t at = 0; at < unused.size(); at += kLocks) {
    std::vector<ChainLock> locks;
    std::vector<digest::Digest> chains;
    for (std::size_t i = at; i < std::min(unused.size(), at + kLocks); ++i) {
      Result<ChainLock> lock = store_.TryLock(unused[i]);
      if (!lock.ok()) continue;
      locks.push_back(*std::move(lock));
      chains.push_back(unused[i]);
    }
    for (const digest::Digest& chain : CRISP_TRY(catalogue_.DropLayers(chains))) {
      Result<std::string> moved = store_.MoveToTrash(store_.layout().Layer(chain.hex()));
      Note(moved.status(), "collect an unused layer", first);
      if (!moved.ok()) continue;
      if (!moved->empty()) trash.push_back(*std::move(moved));
      metrics_.LayerCollected();
      log::Info("unused layer collected", {{"chain", chain.str()}});
    }
  }
  return first;
}

Status Gc::Collect() {
  std::vector<std::string> trash;
  Status first = CollectSome(CRISP_TRY(catalogue_.UnusedLayers(clock_.Wall())), trash);
  Note(DiscardFlats(false), "collect what was made of unused images", first);
  return first;
}

bool Gc::IsLowOnSpace() const {
  for (const std::string& root : {store_.layout().root(), store_.layout().snapshots_root()}) {
    struct statvfs info {};
    if (::statvfs(root.c_str(), &info) != 0) continue;
    constexpr std::uint64_t kWhole = 100;
    const auto low = [this](std::uint64_t free, std::uint64_t all) {
      return all > 0 && free < all / kWhole * options_.low_percent;
    };
    if (low(info.f_bavail, info.f_blocks) || low(info.f_favail, info.f_files)) return true;
  }
  return false;
}

bool Gc::MayDelete() {
  if (quiet_() || IsLowOnSpace()) return true;
  auto since = waiting_since_.lock();
  if (!since->has_value()) *since = clock_.Now();
  return clock_.Now() - **since >= options_.patience;
}

Result<bool> Gc::EmptyTrash(const CallContext& cc) {
  int batches = 0;
  Status first;
  for (const std::string& path : CRISP_TRY(store_.Trash())) {
    while (true) {
      if (!MayDelete() || ++batches > kMaxBatches) return false;
      const Result<bool> gone = store_.DeleteSome(path, kBatch);
      Note(gone.status(), "empty the trash", first);
      if (!gone.ok() || *gone) break;
      CRISP_TRY(work::Pause(cc, kPause));
    }
  }
  waiting_since_.lock()->reset();
  CRISP_TRY(std::move(first));
  return true;
}

Result<bool> Gc::FreeNow(const CallContext& cc, const std::vector<digest::Digest>& layers) {
  std::vector<digest::Digest> unused = CRISP_TRY(catalogue_.UnusedLayers(clock_.Wall()));
  std::erase_if(unused, [&layers](const digest::Digest& chain) {
    return std::find(layers.begin(), layers.end(), chain) == layers.end();
  });
  std::vector<std::string> trash;
  Status first = CollectSome(unused, trash);
  for (const std::string& path : trash) {
    while (true) {
      if (!cc.Check().ok()) return false;
      const Result<bool> gone = store_.DeleteSome(path, kBatch);
      Note(gone.status(), "empty the trash", first);
      if (!gone.ok() || *gone) break;
    }
  }
  CRISP_TRY(std::move(first));
  return trash.size() == unused.size();
}

}  // namespace crisp::imaged
