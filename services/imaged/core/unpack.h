#pragma once

#include <cstdint>
#include <ctime>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "libs/archive/tar.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/os/unique_fd.h"

namespace crisp::imaged {

/// What a layer takes on disk.
struct Usage {
  std::uint64_t bytes = 0;
  std::uint64_t inodes = 0;
};

/// Unpacks the tar of one layer into a directory, in the form that overlayfs takes as a lower layer
/// (mounted with `userxattr`): whiteouts become character devices 0/0, opaque directories get
/// user.overlay.opaque. The layers below are not needed until Finish. One thread at a time.
///
/// Hostile archives: each path is resolved by openat2(2) beneath the directory without following
/// any symbolic link, so nothing is made, changed or linked outside it.
class Unpacker {
 public:
  /// `directory` is empty and stays the caller's to remove.
  static Result<Unpacker> Create(const std::string& directory, Bytes max_size);
  Unpacker(Unpacker&&) = default;

  /// Takes every entry, then the rest of the archive. kInvalidArgument / kDataLoss /
  /// kResourceExhausted name the entry.
  Status Unpack(archive::TarReader& tar);

  /// Gives what the archive left open its final form, with the finished layers below (topmost
  /// first): directories that were only implied get their attributes from there, files that a hard
  /// link names but that are not in this layer are copied up.
  Status Finish(const std::vector<std::string>& parents);

  const Usage& usage() const { return usage_; }

 private:
  struct Path {  // cleaned: no "", "." or ".." component
    std::string directory;
    std::string name;
    std::string Full() const { return directory.empty() ? name : directory + "/" + name; }
  };
  struct Found;

  Unpacker(os::UniqueFd root, Bytes max_size) : root_(std::move(root)), max_size_(max_size) {}

  static Result<Path> Clean(const std::string& path);
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
  Status RootAttributes(const archive::TarEntry& entry);
  Result<Found> FindBelow(const std::vector<std::string>& parents, const std::string& path);
  Status CopyUp(const std::vector<std::string>& parents, const Path& target);

  os::UniqueFd root_;
  Bytes max_size_;
  Usage usage_;
  std::map<std::string, os::UniqueFd> open_;  // directories used lately
  std::map<std::string, timespec> times_;     // of directories, set last
  std::set<std::string> implied_;             // made without an entry of their own; "" is the root
  std::set<std::string> whiteouts_;
  std::vector<std::pair<Path, Path>> late_links_;  // target, link
};

}  // namespace crisp::imaged
