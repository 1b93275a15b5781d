#include "services/imaged/store/layer_store.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <charconv>
#include <cstdio>
#include <set>

#include "libs/base/ids.h"
#include "libs/base/try.h"
#include "libs/os/btrfs.h"
#include "libs/os/files.h"
#include "libs/work/pause.h"
#include "services/imaged/store/erofs_writer.h"
#include "services/imaged/store/layer_reader.h"

namespace crisp::imaged {
namespace {

constexpr auto kLockPause = std::chrono::milliseconds(100);

digest::Digest FlatKey(std::string_view top_chain_hex) {
  return digest::Sha256Digest(fmt::format("flat {}", top_chain_hex));
}

/// Where in the lock file a chain id's byte is: 62 bits of the digest never meet by accident.
off_t LockOffset(const digest::Digest& chain) {
  std::uint64_t value = 0;
  const std::string_view hex = chain.hex().substr(0, 16);
  std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
  return static_cast<off_t>(value >> 2U);
}

}  // namespace

Result<LayerStore> LayerStore::Open(const Layout& layout) {
  // Containers' own users must reach their files through the overlay only: root alone looks in.
  CRISP_TRY(os::MakeDirs(layout.root(), 0700));
  CRISP_TRY(os::MakeDirs(layout.snapshots_root(), 0700));
  for (const std::string& path : {layout.Layers(), layout.Staging(), layout.Snapshots(),
                                  layout.Empty(), layout.Trash(), layout.SnapshotsTrash()})
    CRISP_TRY(os::MakeDirs(path, 0755));
  const os::UniqueFd locks = CRISP_TRY(os::Open(layout.Locks(), O_RDWR | O_CREAT, 0600));
  return LayerStore(layout);
}

Result<ChainLock> LayerStore::TryLockAs(const digest::Digest& chain, short type) const {
  os::UniqueFd fd(::open(layout_.Locks().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) return Status::Errno(errno, "open {}", layout_.Locks());
  struct flock range {};
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = LockOffset(chain);
  range.l_len = 1;
  // Locks of the open file description: they hold between threads too, and go with the fd.
  if (::fcntl(fd.get(), F_OFD_SETLK, &range) != 0) {
    if (errno == EAGAIN || errno == EACCES)
      return Unavailable("layer {} is being worked on", chain.str());
    return Status::Errno(errno, "lock {}", layout_.Locks());
  }
  return ChainLock(std::move(fd));
}

Result<ChainLock> LayerStore::WaitFor(const CallContext& cc,
                                      const std::function<Result<ChainLock>()>& take) {
  while (true) {
    Result<ChainLock> lock = take();
    if (lock.ok() || lock.code() != Code::kUnavailable) return lock;
    CRISP_TRY(cc.Check());
    // Another process holds it: nobody can wake us.
    static_cast<void>(work::Pause(cc, kLockPause).ok());
  }
}

Result<ChainLock> LayerStore::TryLock(const digest::Digest& chain) const {
  return TryLockAs(chain, F_WRLCK);
}

Result<ChainLock> LayerStore::Lock(const CallContext& cc, const digest::Digest& chain) const {
  return WaitFor(cc, [this, &chain] { return TryLock(chain); });
}

Result<ChainLock> LayerStore::TryShare(const digest::Digest& chain) const {
  return TryLockAs(chain, F_RDLCK);
}

Result<ChainLock> LayerStore::Share(const CallContext& cc, const digest::Digest& chain) const {
  return WaitFor(cc, [this, &chain] { return TryShare(chain); });
}

Result<ChainLock> LayerStore::LockFlat(const CallContext& cc, const digest::Digest& top) const {
  return Lock(cc, FlatKey(top.hex()));
}

Result<ChainLock> LayerStore::TryLockFlat(std::string_view top_chain_hex) const {
  return TryLock(FlatKey(top_chain_hex));
}

Result<std::string> LayerStore::Stage(const digest::Digest& chain) const {
  const std::string staged =
      fmt::format("{}/{}.{}", layout_.Staging(), chain.hex(), RandomIds().Next().substr(0, 12));
  CRISP_TRY(os::MakeDirs(staged, 0755));
  CRISP_TRY(os::MakeDirs(staged + std::string(Layout::kDiff), 0755));
  return staged;
}

Result<std::optional<Usage>> LayerStore::MakeImage(const CallContext& cc,
                                                   const std::string& staged) const {
  const std::string tree = staged + std::string(Layout::kDiff);
  const std::string image = staged + std::string(Layout::kImage);
  const bool made = CRISP_TRY(WriteErofs(cc, tree, image));
  if (!made) return std::optional<Usage>();
  CRISP_TRY(Discard(tree));
  return std::optional<Usage>(CRISP_TRY(MeasureTree(image)));
}

std::string LayerStore::PathOf(const digest::Digest& chain) const {
  std::string image = layout_.Image(chain.hex());
  return os::Exists(image) ? image : layout_.Diff(chain.hex());
}

Status LayerStore::Commit(const std::string& staged, const digest::Digest& chain) const {
  const std::string place = layout_.Layer(chain.hex());
  if (os::Exists(place)) CRISP_TRY(Discard(place));
  if (::rename(staged.c_str(), place.c_str()) != 0)
    return Status::Errno(errno, "rename {} to {}", staged, place);
  return Status::Ok();
}

Status LayerStore::MakeSnapshot(std::string_view owner, const std::string& root_like) const {
  const std::string snapshot = layout_.Snapshot(owner);
  const std::string upper = snapshot + "/upper";
  CRISP_TRY(os::MakeDirs(snapshot, 0755));
  CRISP_TRY(os::MakeDirs(upper, 0755));
  CRISP_TRY(os::MakeDirs(snapshot + "/work", 0755));
  // What a volatile mount leaves behind would refuse the next one.
  CRISP_TRY(os::RemoveTree(snapshot + "/work/work/incompat"));
  const std::unique_ptr<archive::TreeReader> top = CRISP_TRY(OpenLayer(root_like));
  const struct stat info = CRISP_TRY(top->Root()).info;
  if (::chown(upper.c_str(), info.st_uid, info.st_gid) != 0 ||
      ::chmod(upper.c_str(), info.st_mode & 07777U) != 0)
    return Status::Errno(errno, "attributes of {}", upper);
  return Status::Ok();
}

Result<std::string> LayerStore::MoveToTrash(const std::string& path) const {
  const bool snapshot =
      os::IsAtOrBelow(path, layout_.Snapshots()) || os::IsAtOrBelow(path, layout_.Flats());
  std::string to = (snapshot ? layout_.SnapshotsTrash() : layout_.Trash()) + "/" +
                   RandomIds().Next().substr(0, 24);
  if (::rename(path.c_str(), to.c_str()) == 0) return to;
  if (errno == ENOENT) return std::string();
  return Status::Errno(errno, "move {} to the trash", path);
}

Status LayerStore::Discard(const std::string& path, std::uint64_t delete_now) const {
  const std::string trash = CRISP_TRY(MoveToTrash(path));
  if (!trash.empty() && delete_now > 0) CRISP_TRY(DeleteSome(trash, delete_now));
  return Status::Ok();
}

Result<std::vector<std::string>> LayerStore::Trash() const {
  std::vector<std::string> paths;
  std::set<std::string> places = {layout_.Trash(), layout_.SnapshotsTrash()};  // often the same
  for (const std::string& place : places)
    for (const std::string& name : CRISP_TRY(os::ListDir(place)))
      paths.push_back(place + "/" + name);
  return paths;
}

Result<bool> LayerStore::DeleteSome(const std::string& trash, std::uint64_t files) const {
  // Subvolumes go at once where we may do that.
  for (const char* subvolume : {"", "/rootfs"}) {
    const Result<bool> deleted = os::DeleteSubvolume(trash + subvolume);
    if (!deleted.ok()) return deleted.status();
  }
  return os::RemoveSome(trash, files);
}

Status LayerStore::Sync() const { return os::SyncFilesystem(layout_.root()); }

}  // namespace crisp::imaged
