#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/os/unique_fd.h"

namespace crisp::imaged {

/// A file of a layer: as lstat(2) tells of it, and what its reader finds it again by.
struct LayerNode {
  struct stat info {};
  os::UniqueFd fd;          // in a tree: opened with O_PATH
  std::uint64_t place = 0;  // in an image: where its inode is
};

/// Where a file's contents are: parts of an open file, one behind the other.
struct LayerContents {
  struct Extent {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
  };
  os::UniqueFd fd;
  std::vector<Extent> extents;

  /// Fills `into` from `offset` of the contents on; how much there was: less only at their end.
  Result<std::size_t> Read(std::uint64_t offset, std::span<char> into) const;
};

/// Reads a finished layer in the form that it has on disk: a file tree, or an EROFS image, which
/// this process may not mount. One thread at a time for a node; several readers of one layer do not
/// meet.
class LayerReader {
 public:
  using Xattrs = std::map<std::string, std::string>;

  /// A directory is a tree, a file an image. kNotFound: there is none; kDataLoss: no image of ours.
  static Result<std::unique_ptr<LayerReader>> Open(const std::string& path);
  virtual ~LayerReader() = default;

  virtual Result<LayerNode> Root() const = 0;
  /// Without following links; nothing where the directory has no such name.
  virtual Result<std::optional<LayerNode>> Find(const LayerNode& directory,
                                                const std::string& name) const = 0;
  /// Sorted, without "." and "..".
  virtual Result<std::vector<std::string>> Names(const LayerNode& directory) const = 0;
  /// All that a directory or a regular file has; other kinds have none.
  virtual Result<Xattrs> ReadXattrs(const LayerNode& node) const = 0;
  virtual Result<std::string> LinkTarget(const LayerNode& link) const = 0;
  virtual Result<LayerContents> Contents(const LayerNode& file) const = 0;

  /// overlayfs's marks: a deletion, and a directory that hides what is below it.
  static bool IsWhiteout(const LayerNode& node) {
    return S_ISCHR(node.info.st_mode) && node.info.st_rdev == 0;
  }
  Result<bool> IsOpaque(const LayerNode& directory) const;
  /// Those that a layer may have, to an open file. `path` is for errors.
  Status CopyXattrs(const LayerNode& node, int to, const std::string& path) const;

 protected:
  LayerReader() = default;
};

/// A part of one file into a place of another, where nothing but a hole is. Holes stay holes;
/// blocks are shared where the file system can. Ends with the call. `path` is for errors, here and
/// below.
Status CopyExtent(const CallContext& cc, int from, const LayerContents::Extent& extent, int to,
                  off_t at, const std::string& path);
/// All contents into an empty file; otherwise as CopyExtent.
Status CopyContents(const CallContext& cc, const LayerContents& from, int to,
                    const std::string& path);

}  // namespace crisp::imaged
