#pragma once

#include <cstdint>
#include <ctime>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "libs/archive/tar.h"
#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/os/unique_fd.h"
#include "services/imaged/store/usage.h"

namespace crisp::imaged {

struct UnpackLimits {
  Bytes max_size = GiB(64);  // contents of all files together, with their holes
  std::uint64_t max_inodes = 4'000'000;
  Bytes max_names = MiB(256);  // of memory, for what must be known of an archive to its end
};

/// Unpacks the tar of one layer into a directory, in the form that overlayfs takes as a lower layer
/// (mounted with `userxattr`): whiteouts become character devices 0/0, opaque directories get
/// user.overlay.opaque. The layers below are not needed until Finish. One thread at a time.
///
/// Hostile archives: each path is resolved by openat2(2) beneath the directory without following
/// any symbolic link, so nothing is made, changed or linked outside it. A path through a symbolic
/// link is followed by us, step by step, with the layer as its root: a link of the same layer at
/// once, one of a layer below in Finish.
///
/// Extended attributes: user.* and security.capability are kept. trusted.*, user.overlay.*,
/// system.* and other security.* would speak to overlayfs in our name or are the host's to give:
/// they are left out. Of two entries with one name the later one holds.
class Unpacker {
 public:
  /// `directory` is empty and stays the caller's to remove.
  static Result<Unpacker> Create(const std::string& directory, const UnpackLimits& limits);
  Unpacker(Unpacker&&) = default;

  /// Takes every entry, then the rest of the archive. kInvalidArgument / kDataLoss /
  /// kResourceExhausted name the entry.
  Status Unpack(archive::TarReader& tar);

  /// Gives what the archive left open its final form, with the finished layers below (topmost
  /// first): what lies in a directory that was only implied, and is a link below, moves to where
  /// that leads; other implied directories get their attributes from there; files that a hard link
  /// names but that are not in this layer are copied up, within the same limits. kAborted: a layer
  /// below is not there any more.
  Status Finish(const CallContext& cc, const std::vector<std::string>& parents);

  /// After Finish: what the layer takes on disk.
  const Usage& usage() const { return usage_; }
  /// Device nodes that this process may not make, so that the layer lacks them.
  std::uint64_t devices_left_out() const { return devices_left_out_; }

 private:
  struct Path {  // cleaned: no "", "." or ".." component
    std::string directory;
    std::string name;
    std::string Full() const { return directory.empty() ? name : directory + "/" + name; }
  };
  struct Found;
  struct Late {  // what a directory gets last, when nothing is made in it any more
    timespec time{};
    bool has_time = false;
    mode_t mode = 0;  // with setgid, which would be inherited; 0: it has its mode
  };

  struct LateLink {  // to what this layer does not have yet: a lower layer may, or what comes later
    Path target;
    Path path;
    ino_t placeholder = 0;  // an empty file; another inode there: a later entry has the name
  };

  Unpacker(os::UniqueFd root, const UnpackLimits& limits)
      : root_(std::move(root)), limits_(limits) {}

  static Result<Path> Clean(const std::string& path);
  Result<Path> Locate(Path path);
  using LinkAt = std::function<Result<std::optional<std::string>>(const std::string& directory,
                                                                  const std::string& name)>;
  static Result<std::string> FollowLinks(const std::string& directory, const LinkAt& link);
  Result<std::optional<std::string>> OwnLink(const std::string& directory,
                                             const std::string& name) const;
  Result<std::optional<std::string>> LinkBelow(const std::vector<std::string>& parents,
                                               const std::string& directory,
                                               const std::string& name);
  Result<std::string> FollowBelow(const std::vector<std::string>& parents,
                                  const std::string& directory);
  Status MoveThroughLinks(const CallContext& cc, const std::vector<std::string>& parents);
  Status MoveInto(const std::string& from, const std::string& to);
  void Renamed(const std::string& from, const std::string& to);
  Status RenamedLinks(const std::string& from, const std::string& to);
  Result<int> Directory(const std::string& path, bool make);
  Status MakeImplied(const std::string& path);
  Status Apply(archive::TarReader& tar, const archive::TarEntry& entry);
  Status File(archive::TarReader& tar, const archive::TarEntry& entry, const Path& path);
  Status MakeDirectory(const archive::TarEntry& entry, const Path& path);
  Status Special(const archive::TarEntry& entry, const Path& path);
  Status Link(const archive::TarEntry& entry, const Path& path);
  Result<bool> TryLink(const Path& target, const Path& path);
  Status Whiteout(const Path& path);
  Status MarkOpaque(int directory, const std::string& path);
  Status Remove(int directory, const Path& path);
  Status Write(archive::TarReader& tar, const archive::TarEntry& entry, int fd);
  Status HideRootOf(const CallContext& cc, const std::vector<std::string>& parents);
  Status FinishDirectories(const CallContext& cc);
  Status FinishImplied(const CallContext& cc, const std::vector<std::string>& parents);
  Status Account(std::uint64_t inodes);
  Status AccountSize(std::uint64_t bytes);
  Status Remember(std::size_t name);
  Status RootAttributes(const archive::TarEntry& entry);
  Result<Found> FindBelow(const std::vector<std::string>& parents, const std::string& path);
  Status Defer(const Path& target, const Path& path);
  bool IsHidden(const Path& path) const;
  const Path* DeferredTarget(const Path& path);
  Result<bool> IsHere(const Path& path);
  Status FinishLinks(const CallContext& cc, const std::vector<std::string>& parents);
  Status CopyUp(const CallContext& cc, const Found& found, const std::string& name, const Path& to);

  os::UniqueFd root_;
  UnpackLimits limits_;
  std::uint64_t contents_ = 0;  // sizes of all files
  std::uint64_t names_ = 0;     // bytes that the names below take
  Usage usage_;
  bool recount_ = false;  // something was made and replaced: usage_ is too large
  bool root_opaque_ = false;
  std::uint64_t devices_left_out_ = 0;
  std::map<std::string, os::UniqueFd> open_;  // directories used lately
  std::map<std::string, Late> late_;          // every directory; "" is the root
  std::set<std::string> implied_;             // made without an entry of their own; "" is the root
  std::set<std::string> whiteouts_;
  std::set<std::string> opaques_;  // directories
  std::vector<LateLink> late_links_;
  std::map<ino_t, Path> placeholders_;  // their targets
};

}  // namespace crisp::imaged
