#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/imaged/core/unpack_internal.h"

// The unpacker's third part: paths through links of the layers below. An archive may have lib/x
// where a layer below has made lib a link to usr/lib. Its entry was unpacked into a directory lib
// of this layer, which would hide the link; where that leads is known only once the layers below
// are there.
namespace crisp::imaged {

using internal::OpenBeneath;

namespace {

constexpr int kMaxMoved = 100;  // directories of one layer

/// Of names in their order, a set or the keys of a map: `from` and those below it are called after
/// `to`.
template <typename Names>
void RenameTree(Names& names, const std::string& from, const std::string& to) {
  constexpr char kAfterSlash = '/' + 1;
  Names renamed;
  const auto rename = [&](auto node) {
    if constexpr (requires { node.key(); }) {
      node.key().replace(0, from.size(), to);
    } else {
      node.value().replace(0, from.size(), to);
    }
    renamed.insert(std::move(node));
  };
  if (auto top = names.extract(from); !top.empty()) rename(std::move(top));
  const auto end = names.lower_bound(from + kAfterSlash);
  for (auto at = names.lower_bound(from + '/'); at != end;) rename(names.extract(at++));
  names.merge(renamed);
}

}  // namespace

/// The target of a link that a container would see at that name; what this layer has there by an
/// entry of its own, or deletes, comes before the layers below.
Result<std::optional<std::string>> Unpacker::LinkBelow(const std::vector<std::string>& parents,
                                                       const std::string& directory,
                                                       const std::string& name) {
  using Target = std::optional<std::string>;
  const Path path{directory, name};
  if (Target own = CRISP_TRY(OwnLink(directory, name))) return own;
  const os::UniqueFd here(OpenBeneath(root_.get(), directory, O_PATH | O_DIRECTORY));
  struct stat info {};
  if (here && ::fstatat(here.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 &&
      !implied_.contains(path.Full()))
    return Target();
  if (IsHidden(path) || opaques_.contains(path.Full())) return Target();
  const Found found = CRISP_TRY(FindBelow(parents, path.Full()));
  if (!found.layer || !S_ISLNK(found.node.info.st_mode)) return Target();
  return Target(CRISP_TRY(found.layer->LinkTarget(found.node)));
}

Result<std::string> Unpacker::FollowBelow(const std::vector<std::string>& parents,
                                          const std::string& directory) {
  return FollowLinks(directory, [this, &parents](const std::string& at, const std::string& name) {
    return LinkBelow(parents, at, name);
  });
}

/// What is remembered by its name in this layer has another one now.
void Unpacker::Renamed(const std::string& from, const std::string& to) {
  RenameTree(late_, from, to);
  RenameTree(implied_, from, to);
  RenameTree(whiteouts_, from, to);
  RenameTree(opaques_, from, to);
}

/// The same for hard links that wait, and what they lead to.
Status Unpacker::RenamedLinks(const std::string& from, const std::string& to) {
  const auto rename = [&from, &to](Path& path) -> Status {
    const std::string full = path.Full();
    if (!full.starts_with(from + "/")) return Status::Ok();
    path = CRISP_TRY(Clean(to + full.substr(from.size())));
    return Status::Ok();
  };
  for (LateLink& link : late_links_) {
    CRISP_TRY(rename(link.target));
    CRISP_TRY(rename(link.path));
  }
  for (auto& [inode, target] : placeholders_) CRISP_TRY(rename(target));
  return Status::Ok();
}

/// The contents of one directory into another, which is made when absent. Where both have a name,
/// directories become one, and else what the archive called so itself stays.
Status Unpacker::MoveInto(const std::string& from, const std::string& to) {
  CRISP_TRY(Directory(to, true));
  const os::UniqueFd source(OpenBeneath(root_.get(), from, O_RDONLY | O_DIRECTORY));
  const os::UniqueFd target(OpenBeneath(root_.get(), to, O_RDONLY | O_DIRECTORY));
  if (!source || !target) return Status::Errno(errno, "move {} to {}", from, to);
  if (implied_.contains(to) && !implied_.contains(from)) {
    struct stat info {};
    if (::fstat(source.get(), &info) != 0 ||
        ::fchown(target.get(), info.st_uid, info.st_gid) != 0 ||
        ::fchmod(target.get(), info.st_mode & 07777U) != 0)
      return Status::Errno(errno, "attributes of {}", to);
    const auto xattrs = CRISP_TRY(archive::ReadXattrs(source.get(), from));
    CRISP_TRY(WriteXattrs(xattrs, target.get(), to));
    late_[to] = late_[from];
    implied_.erase(to);
  }
  if (opaques_.contains(from)) CRISP_TRY(MarkOpaque(target.get(), to));
  for (const std::string& name :
       CRISP_TRY(os::ListDir(fmt::format("/proc/self/fd/{}", source.get())))) {
    const Path old{from, name};
    const Path moved{to, name};
    if (::renameat2(source.get(), name.c_str(), target.get(), name.c_str(), RENAME_NOREPLACE) ==
        0) {
      Renamed(old.Full(), moved.Full());
      continue;
    }
    if (errno != EEXIST) return Status::Errno(errno, "move {} to {}", old.Full(), moved.Full());
    struct stat ours {};
    struct stat there {};
    if (::fstatat(source.get(), name.c_str(), &ours, AT_SYMLINK_NOFOLLOW) != 0 ||
        ::fstatat(target.get(), name.c_str(), &there, AT_SYMLINK_NOFOLLOW) != 0)
      return Status::Errno(errno, "stat {}", moved.Full());
    if (S_ISDIR(ours.st_mode) && S_ISDIR(there.st_mode)) {
      CRISP_TRY(MoveInto(old.Full(), moved.Full()));
    } else if (internal::IsWhiteout(there) && !internal::IsWhiteout(ours)) {
      // A deletion hides what is below this layer, never what the layer itself brings.
      CRISP_TRY(Remove(target.get(), moved));
      if (::renameat(source.get(), name.c_str(), target.get(), name.c_str()) != 0)
        return Status::Errno(errno, "move {} to {}", old.Full(), moved.Full());
      Renamed(old.Full(), moved.Full());
      if (S_ISDIR(ours.st_mode)) CRISP_TRY(MarkOpaque(-1, moved.Full()));
    } else {
      CRISP_TRY(Remove(source.get(), old));
    }
  }
  open_.clear();
  const Path emptied = CRISP_TRY(Clean(from));
  const int parent = CRISP_TRY(Directory(emptied.directory, false));
  CRISP_TRY(Remove(parent, emptied));
  return Status::Ok();
}

Status Unpacker::MoveThroughLinks(const CallContext& cc, const std::vector<std::string>& parents) {
  if (parents.empty()) return Status::Ok();
  // Those above come before those below them, which may move along.
  std::vector<std::string> ahead(implied_.rbegin(), implied_.rend());
  int moved = 0;
  while (!ahead.empty()) {
    CRISP_TRY(cc.Check());
    const std::string path = std::move(ahead.back());
    ahead.pop_back();
    if (path.empty() || !implied_.contains(path)) continue;
    const Path clean = CRISP_TRY(Clean(path));
    if (!CRISP_TRY(LinkBelow(parents, clean.directory, clean.name))) continue;
    if (++moved > kMaxMoved)
      return ResourceExhausted("more than {} directories of the layer are links below", kMaxMoved);
    const std::string to = CRISP_TRY(FollowBelow(parents, path));
    std::vector<std::string> below;
    for (auto at = implied_.lower_bound(path + "/");
         at != implied_.end() && at->starts_with(path + "/"); ++at)
      below.push_back(to.empty() ? at->substr(path.size() + 1) : to + at->substr(path.size()));
    CRISP_TRY(MoveInto(path, to));
    CRISP_TRY(RenamedLinks(path, to));
    ahead.insert(ahead.end(), below.rbegin(), below.rend());
  }
  return Status::Ok();
}

}  // namespace crisp::imaged
