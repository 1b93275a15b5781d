#include "libs/archive/tree_tar.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <map>
#include <span>
#include <string>

#include "libs/archive/tar_writer.h"
#include "libs/base/try.h"

namespace crisp::archive {
namespace {

constexpr std::size_t kPiece = std::size_t{256} << 10U;

class Writer {
 public:
  Writer(const CallContext& cc, const TreeReader& tree, const Shape& shape, const TarSink& sink)
      : cc_(cc), tree_(tree), shape_(shape), sink_(sink) {}

  Status All() {
    const TreeNode root = CRISP_TRY(tree_.Root());
    CRISP_TRY(One(root, "."));
    return sink_(TarEnd());
  }

 private:
  /// What is called `path` in the tree, and what is below it.
  Status One(const TreeNode& node, const std::string& path);
  Status Directory(const TreeNode& node, const std::string& path, TarEntry& entry);
  Status File(const TreeNode& node, const std::string& path, TarEntry& entry);
  /// The header of a member, as it is shaped; false: it is not wanted.
  Result<bool> Put(TarEntry& entry);
  Status Leaf(TarEntry& entry) { return Put(entry).status(); }
  Status AddXattrs(const TreeNode& node, const std::string& path, TarEntry& entry) const;

  const CallContext& cc_;
  const TreeReader& tree_;
  const Shape& shape_;
  const TarSink& sink_;
  std::map<ino_t, std::string> linked_;  // files with several names: the one that was written
  std::string piece_ = std::string(kPiece, '\0');
};

Result<bool> Writer::Put(TarEntry& entry) {
  const Shaped shaped = CRISP_TRY(shape_(entry));
  if (!shaped.wanted) return false;
  if (shaped.itself) {
    const std::string header = CRISP_TRY(TarHeader(entry));
    CRISP_TRY(sink_(header));
  }
  for (const TarEntry& after : shaped.after) {
    const std::string more = CRISP_TRY(TarHeader(after));
    CRISP_TRY(sink_(more));
  }
  return true;
}

Status Writer::AddXattrs(const TreeNode& node, const std::string& path, TarEntry& entry) const {
  entry.xattrs = CRISP_TRY(tree_.ReadXattrs(node).While("{}", path));
  // Nobody's to pass on.
  std::erase_if(entry.xattrs, [](const auto& each) { return each.first.starts_with("trusted."); });
  return Status::Ok();
}

Status Writer::Directory(const TreeNode& node, const std::string& path, TarEntry& entry) {
  CRISP_TRY(AddXattrs(node, path, entry));
  if (!CRISP_TRY(Put(entry))) return Status::Ok();
  const std::string below = path == "." ? "" : path + "/";
  for (const std::string& name : CRISP_TRY(tree_.Names(node))) {
    const auto child = CRISP_TRY(tree_.Find(node, name));
    if (!child) return DataLoss("{}{} vanished while it was read", below, name);
    CRISP_TRY(One(*child, below + name));
  }
  return Status::Ok();
}

Status Writer::File(const TreeNode& node, const std::string& path, TarEntry& entry) {
  CRISP_TRY(AddXattrs(node, path, entry));
  if (!CRISP_TRY(Put(entry))) return Status::Ok();
  const TreeContents contents = CRISP_TRY(tree_.Contents(node));
  for (std::uint64_t at = 0; at < entry.size;) {
    CRISP_TRY(cc_.Check());
    const auto size =
        static_cast<std::size_t>(std::min<std::uint64_t>(entry.size - at, piece_.size()));
    const std::size_t count =
        CRISP_TRY(contents.Read(at, std::span(piece_.data(), size)).While("{}", path));
    if (count == 0) return DataLoss("{} became shorter while it was read", path);
    CRISP_TRY(sink_(std::string_view(piece_.data(), count)));
    at += count;
  }
  return sink_(TarPadding(entry.size));
}

Status Writer::One(const TreeNode& node, const std::string& path) {
  CRISP_TRY(cc_.Check());
  const struct stat& info = node.info;
  TarEntry entry;
  entry.path = path == "." ? "./" : path;
  entry.mode = info.st_mode & 07777U;
  entry.uid = info.st_uid;
  entry.gid = info.st_gid;
  entry.mtime_seconds = info.st_mtim.tv_sec;
  entry.mtime_nanoseconds = static_cast<std::uint32_t>(info.st_mtim.tv_nsec);
  if (S_ISDIR(info.st_mode)) {
    entry.type = EntryType::kDirectory;
    return Directory(node, path, entry);
  }
  // overlayfs gives one mark of what is deleted many names: each is a mark of its own.
  const bool is_mark = S_ISCHR(info.st_mode) && info.st_rdev == 0;
  if (info.st_nlink > 1 && !is_mark) {
    const auto [first, fresh] = linked_.try_emplace(info.st_ino, path);
    if (!fresh) {
      entry.type = EntryType::kHardLink;
      entry.link = first->second;
      return Leaf(entry);
    }
  }
  if (S_ISREG(info.st_mode)) {
    entry.size = static_cast<std::uint64_t>(info.st_size);
    return File(node, path, entry);
  }
  if (S_ISLNK(info.st_mode)) {
    entry.type = EntryType::kSymlink;
    entry.link = CRISP_TRY(tree_.LinkTarget(node));
    return Leaf(entry);
  }
  if (S_ISFIFO(info.st_mode)) {
    entry.type = EntryType::kFifo;
    return Leaf(entry);
  }
  if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
    entry.type = S_ISCHR(info.st_mode) ? EntryType::kCharDevice : EntryType::kBlockDevice;
    entry.device_major = ::major(info.st_rdev);
    entry.device_minor = ::minor(info.st_rdev);
    return Leaf(entry);
  }
  return Status::Ok();  // a socket: tar has none
}

}  // namespace

Status WriteTree(const CallContext& cc, const TreeReader& tree, const Shape& shape,
                 const TarSink& sink) {
  return Writer(cc, tree, shape, sink).All();
}

}  // namespace crisp::archive
