#include "services/imaged/core/layer_tar.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <map>
#include <memory>
#include <span>

#include "libs/archive/tar_writer.h"
#include "libs/base/try.h"
#include "services/imaged/store/layer_file.h"
#include "services/imaged/store/layer_reader.h"

namespace crisp::imaged {
namespace {

constexpr std::size_t kPiece = std::size_t{256} << 10U;

class Writer {
 public:
  Writer(const CallContext& cc, const LayerReader& layer,
         const std::function<Status(std::string_view)>& sink)
      : cc_(cc), layer_(layer), sink_(sink) {}

  Status All() {
    const LayerNode root = CRISP_TRY(layer_.Root());
    CRISP_TRY(One(root, "."));
    return sink_(archive::TarEnd());
  }

 private:
  /// What is called `path` in the layer, and what is below it.
  Status One(const LayerNode& node, const std::string& path);
  Status Directory(const LayerNode& node, const std::string& path, archive::TarEntry& entry);
  Status File(const LayerNode& node, const std::string& path, archive::TarEntry& entry);
  Status Put(const archive::TarEntry& entry) {
    const std::string header = CRISP_TRY(archive::TarHeader(entry));
    return sink_(header);
  }
  Status AddXattrs(const LayerNode& node, archive::TarEntry& entry) const;

  const CallContext& cc_;
  const LayerReader& layer_;
  const std::function<Status(std::string_view)>& sink_;
  std::map<ino_t, std::string> linked_;  // files with several names: the one that was written
  std::string piece_ = std::string(kPiece, '\0');
};

Status Writer::AddXattrs(const LayerNode& node, archive::TarEntry& entry) const {
  for (auto& [name, value] : CRISP_TRY(layer_.ReadXattrs(node))) {
    // What overlayfs means by its own is written as .wh. files; trusted.* is nobody's to pass on.
    if (name.starts_with("user.overlay.") && name != kOpaqueXattr) continue;
    if (name.starts_with("trusted.")) continue;
    entry.xattrs[name] = value;
  }
  return Status::Ok();
}

Status Writer::Directory(const LayerNode& node, const std::string& path, archive::TarEntry& entry) {
  CRISP_TRY(AddXattrs(node, entry));
  const bool opaque = entry.xattrs.erase(std::string(kOpaqueXattr)) > 0;
  CRISP_TRY(Put(entry));
  const std::string below = path == "." ? "" : path + "/";
  if (opaque) CRISP_TRY(Put({.path = below + ".wh..wh..opq", .mode = 0644}));
  for (const std::string& name : CRISP_TRY(layer_.Names(node))) {
    const auto child = CRISP_TRY(layer_.Find(node, name));
    if (!child) return DataLoss("{}{} vanished while it was read", below, name);
    CRISP_TRY(One(*child, below + name));
  }
  return Status::Ok();
}

Status Writer::File(const LayerNode& node, const std::string& path, archive::TarEntry& entry) {
  CRISP_TRY(AddXattrs(node, entry));
  CRISP_TRY(Put(entry));
  const LayerContents contents = CRISP_TRY(layer_.Contents(node));
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
  return sink_(archive::TarPadding(entry.size));
}

Status Writer::One(const LayerNode& node, const std::string& path) {
  CRISP_TRY(cc_.Check());
  const struct stat& info = node.info;
  archive::TarEntry entry;
  entry.path = path == "." ? "./" : path;
  entry.mode = info.st_mode & 07777U;
  entry.uid = info.st_uid;
  entry.gid = info.st_gid;
  entry.mtime_seconds = info.st_mtim.tv_sec;
  entry.mtime_nanoseconds = static_cast<std::uint32_t>(info.st_mtim.tv_nsec);
  if (S_ISDIR(info.st_mode)) {
    entry.type = archive::EntryType::kDirectory;
    return Directory(node, path, entry);
  }
  if (LayerReader::IsWhiteout(node)) {
    const std::size_t name = path.rfind('/') + 1;  // 0 without a slash
    return Put({.path = path.substr(0, name) + ".wh." + path.substr(name), .mode = 0644});
  }
  if (info.st_nlink > 1) {
    const auto [first, fresh] = linked_.try_emplace(info.st_ino, path);
    if (!fresh) {
      entry.type = archive::EntryType::kHardLink;
      entry.link = first->second;
      return Put(entry);
    }
  }
  if (S_ISREG(info.st_mode)) {
    entry.size = static_cast<std::uint64_t>(info.st_size);
    return File(node, path, entry);
  }
  if (S_ISLNK(info.st_mode)) {
    entry.type = archive::EntryType::kSymlink;
    entry.link = CRISP_TRY(layer_.LinkTarget(node));
    return Put(entry);
  }
  if (S_ISFIFO(info.st_mode)) {
    entry.type = archive::EntryType::kFifo;
    return Put(entry);
  }
  if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
    entry.type =
        S_ISCHR(info.st_mode) ? archive::EntryType::kCharDevice : archive::EntryType::kBlockDevice;
    entry.device_major = ::major(info.st_rdev);
    entry.device_minor = ::minor(info.st_rdev);
    return Put(entry);
  }
  return Status::Ok();  // a socket: tar has none
}

}  // namespace

Status WriteLayerTar(const CallContext& cc, const std::string& path,
                     const std::function<Status(std::string_view)>& sink) {
  const std::unique_ptr<LayerReader> layer = CRISP_TRY(LayerReader::Open(path));
  return Writer(cc, *layer, sink).All();
}

}  // namespace crisp::imaged
