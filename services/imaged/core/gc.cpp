#include "services/imaged/core/gc.h"

#include <sys/stat.h>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "services/imaged/registry/client.h"

namespace crisp::imaged {
namespace {

constexpr int kBatch = 256;  // files between two pauses
constexpr auto kPause = std::chrono::milliseconds(20);
constexpr auto kOldHome = std::chrono::minutes(10);
constexpr int kMaxBatches = 500;  // of one call

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

/// Homes of gpg whose imaged was killed; a younger one may be another instance's at work.
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

Status Gc::Recover() {
  const Layout& layout = store_.layout();
  CRISP_TRY(DiscardOldHomes());
  const std::int64_t doubtful = CRISP_TRY(catalogue_.DropDoubtful());
  if (doubtful > 0)
    log::Warn("layers were not on the disk when the machine went down: forgotten",
              {{"layers", doubtful}});
  CRISP_TRY(DiscardUnknown(layout.Staging(), true));
  CRISP_TRY(DiscardUnknown(layout.Layers(), false));
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

Status Gc::Collect() {
  for (const digest::Digest& chain : CRISP_TRY(catalogue_.UnusedLayers(clock_.Wall()))) {
    const Result<ChainLock> lock = store_.TryLock(chain);
    if (!lock.ok()) continue;
    if (!CRISP_TRY(catalogue_.DropLayer(chain))) continue;
    CRISP_TRY(store_.Discard(store_.layout().Layer(chain.hex())));
    metrics_.LayerCollected();
    log::Info("unused layer collected", {{"chain", chain.str()}});
  }
  return Status::Ok();
}

Result<bool> Gc::EmptyTrash(const CallContext& cc) {
  int batches = 0;
  for (const std::string& path : CRISP_TRY(store_.Trash())) {
    while (true) {
      if (!quiet_() || ++batches > kMaxBatches) return false;
      if (CRISP_TRY(store_.DeleteSome(path, kBatch))) break;
      CRISP_TRY(Pause(cc, kPause));
    }
  }
  return true;
}

}  // namespace crisp::imaged
