#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/imaged/core/unpack_internal.h"

// The unpacker's second part: what needs the layers below.
namespace crisp::imaged {

using internal::Both;

namespace {

constexpr std::uint64_t kStatBlock = 512;

Result<std::shared_ptr<archive::TreeReader>> OpenParent(const std::string& parent) {
  Result<std::unique_ptr<archive::TreeReader>> reader = OpenLayer(parent);
  if (reader.code() == Code::kNotFound)  // collected, as nothing held it yet
    return Aborted("the layer below at {} is not there any more", parent);
  if (!reader.ok()) return reader.status();
  return std::shared_ptr<archive::TreeReader>(*std::move(reader));
}

}  // namespace

/// What overlayfs would show at `path` of the layers below: whiteouts and opaque directories count.
Result<Unpacker::Found> Unpacker::FindBelow(const std::vector<std::string>& parents,
                                            const std::string& path) {
  for (const std::string& parent : parents) {
    Found found;
    found.layer = CRISP_TRY(OpenParent(parent));
    found.node = CRISP_TRY(found.layer->Root());
    if (path.empty()) return found;
    bool opaque = false;
    std::string_view rest = path;
    while (true) {
      const std::string name(rest.substr(0, rest.find('/')));
      const bool last = name.size() == rest.size();
      auto next = CRISP_TRY(found.layer->Find(found.node, name).While("{}", path));
      if (!next) break;  // look in the layer below
      if (IsWhiteout(*next)) return Found{};
      found.node = *std::move(next);
      if (last) return found;
      if (!S_ISDIR(found.node.info.st_mode)) return Found{};
      opaque = opaque || CRISP_TRY(IsOpaque(*found.layer, found.node));
      rest.remove_prefix(name.size() + 1);
    }
    if (opaque) return Found{};
  }
  return Found{};
}

/// A file of a lower layer, made here as `to`.
Status Unpacker::CopyUp(const CallContext& cc, const Found& found, const std::string& full,
                        const Path& target) {
  const struct stat& info = found.node.info;
  CRISP_TRY(AccountSize(static_cast<std::uint64_t>(info.st_size)));
  const int parent = CRISP_TRY(Directory(target.directory, true));
  const std::array<timespec, 2> times = {info.st_atim, info.st_mtim};
  if (S_ISLNK(info.st_mode)) {
    const std::string link = CRISP_TRY(found.layer->LinkTarget(found.node));
    if (::symlinkat(link.c_str(), parent, target.name.c_str()) != 0 ||
        ::fchownat(parent, target.name.c_str(), info.st_uid, info.st_gid, AT_SYMLINK_NOFOLLOW) != 0)
      return Status::Errno(errno, "copy {} up", full);
  } else {
    const archive::TreeContents from = CRISP_TRY(found.layer->Contents(found.node));
    const os::UniqueFd to(::openat(parent, target.name.c_str(),
                                   O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!to) return Status::Errno(errno, "copy {} up", full);
    CRISP_TRY(CopyContents(cc, from, to.get(), full));
    if (::fchown(to.get(), info.st_uid, info.st_gid) != 0 ||
        ::fchmod(to.get(), info.st_mode & 07777U) != 0)
      return Status::Errno(errno, "copy {} up", full);
    CRISP_TRY(CopyXattrs(*found.layer, found.node, to.get(), full));
    usage_.bytes += static_cast<std::uint64_t>(info.st_blocks) * kStatBlock;
  }
  CRISP_TRY(Account(1));
  if (::utimensat(parent, target.name.c_str(), times.data(), AT_SYMLINK_NOFOLLOW) != 0)
    return Status::Errno(errno, "copy {} up: set times", full);
  return Status::Ok();
}

/// An opaque root: overlayfs would not take it from a layer's own root, so each name below is
/// hidden.
Status Unpacker::HideRootOf(const CallContext& cc, const std::vector<std::string>& parents) {
  if (!root_opaque_) return Status::Ok();
  for (const std::string& parent : parents) {
    const std::shared_ptr<archive::TreeReader> layer = CRISP_TRY(OpenParent(parent));
    const archive::TreeNode root = CRISP_TRY(layer->Root());
    for (const std::string& name : CRISP_TRY(layer->Names(root))) {
      CRISP_TRY(cc.Check());
      if (::mknodat(root_.get(), name.c_str(), S_IFCHR, 0) == 0) {
        CRISP_TRY(Account(1));
        continue;
      }
      if (errno != EEXIST) return Status::Errno(errno, "whiteout of {}", name);
      if (late_.contains(name)) CRISP_TRY(MarkOpaque(-1, name));
    }
  }
  return Status::Ok();
}

/// Times and setgid, from the leaves up or in any other order: nothing is made any more.
Status Unpacker::FinishDirectories(const CallContext& cc) {
  for (const auto& [path, late] : late_) {
    CRISP_TRY(cc.Check());
    const Path clean = CRISP_TRY(Clean(path));
    const int parent = CRISP_TRY(Directory(clean.directory, false));
    const char* name = path.empty() ? "." : clean.name.c_str();
    if (late.mode != 0 && ::fchmodat(parent, name, late.mode, 0) != 0)
      return Status::Errno(errno, "{}: chmod", path);
    const auto times = Both(late.time);
    if (late.has_time && ::utimensat(parent, name, times.data(), AT_SYMLINK_NOFOLLOW) != 0)
      return Status::Errno(errno, "{}: set times", path);
    struct stat info {};
    if (::fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) != 0)
      return Status::Errno(errno, "stat {}", path);
    usage_.bytes += static_cast<std::uint64_t>(info.st_blocks) * kStatBlock;
  }
  late_.clear();
  open_.clear();
  return Status::Ok();
}

/// Something of this layer is there.
Result<bool> Unpacker::IsHere(const Path& path) {
  struct stat info {};
  const Result<int> parent = Directory(path.directory, false);
  if (!parent.ok()) return false;
  if (::fstatat(*parent, path.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) return true;
  if (errno == ENOENT) return false;
  return Status::Errno(errno, "stat {}", path.Full());
}

/// A link means the file that was there when its turn came: a lower layer's, even where this layer
/// deletes or replaces it further on; else one that came later in this layer.
Status Unpacker::FinishLinks(const CallContext& cc, const std::vector<std::string>& parents) {
  std::map<std::string, Path> copies;  // of lower files, by the links' target
  for (const auto& [named, path, placeholder] : late_links_) {
    CRISP_TRY(cc.Check());
    Path target = named;
    const int parent = CRISP_TRY(Directory(path.directory, true));
    struct stat info {};
    if (::fstatat(parent, path.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 ||
        info.st_ino != placeholder || !placeholders_.contains(placeholder))
      continue;  // a later entry has the name
    CRISP_TRY(Remove(parent, path));
    Found found = CRISP_TRY(FindBelow(parents, target.Full()));
    if (!found.layer && !parents.empty()) {  // it may be behind a link of theirs
      target.directory = CRISP_TRY(FollowBelow(parents, target.directory));
      found = CRISP_TRY(FindBelow(parents, target.Full()));
    }
    const std::string full = target.Full();
    const bool below =
        found.layer && (S_ISREG(found.node.info.st_mode) || S_ISLNK(found.node.info.st_mode));
    const bool own = !below || copies.contains(full);
    Path from = copies.contains(full) ? copies[full] : target;
    if (!own) {
      const bool taken = CRISP_TRY(IsHere(target));
      if (taken || IsHidden(target)) from = path;
      CRISP_TRY(CopyUp(cc, found, full, from));
      copies[full] = from;
    }
    if (!CRISP_TRY(TryLink(from, path)))
      return InvalidArgument("a hard link leads to {}, which no layer has", full);
  }
  late_links_.clear();
  return Status::Ok();
}

Status Unpacker::FinishImplied(const CallContext& cc, const std::vector<std::string>& parents) {
  for (const std::string& path : implied_) {
    CRISP_TRY(cc.Check());
    const Found found = CRISP_TRY(FindBelow(parents, path));
    if (!found.layer || !S_ISDIR(found.node.info.st_mode)) continue;
    const int fd = CRISP_TRY(Directory(path, false));
    const mode_t mode = found.node.info.st_mode & 07777U;
    if (::fchown(fd, found.node.info.st_uid, found.node.info.st_gid) != 0 ||
        ::fchmod(fd, mode & ~mode_t{S_ISGID}) != 0)
      return Status::Errno(errno, "attributes of {}", path);
    CRISP_TRY(CopyXattrs(*found.layer, found.node, fd, path));
    late_[path] = {found.node.info.st_mtim, true, (mode & S_ISGID) != 0 ? mode : 0};
  }
  implied_.clear();
  return Status::Ok();
}

Status Unpacker::Finish(const CallContext& cc, const std::vector<std::string>& parents) {
  CRISP_TRY(MoveThroughLinks(cc, parents));
  CRISP_TRY(FinishLinks(cc, parents));
  CRISP_TRY(FinishImplied(cc, parents));
  CRISP_TRY(HideRootOf(cc, parents));
  CRISP_TRY(FinishDirectories(cc));
  // Whatever was replaced on the way was counted, too.
  if (recount_) usage_ = CRISP_TRY(MeasureTree(fmt::format("/proc/self/fd/{}/.", root_.get())));
  return Status::Ok();
}

}  // namespace crisp::imaged
