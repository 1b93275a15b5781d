#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "libs/base/result.h"
#include "libs/os/unique_fd.h"

namespace crisp::archive {

using Xattrs = std::map<std::string, std::string>;

/// A file of a tree: as lstat(2) tells of it, and what its reader finds it again by.
struct TreeNode {
  struct stat info {};
  os::UniqueFd fd;          // in a directory: opened with O_PATH
  std::uint64_t place = 0;  // in a file that holds the tree: where it is
};

/// Where a file's contents are: parts of an open file, one behind the other.
struct TreeContents {
  struct Extent {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
  };
  os::UniqueFd fd;
  std::vector<Extent> extents;

  /// Fills `into` from `offset` of the contents on; how much there was: less only at their end.
  /// kDataLoss: the file became shorter meanwhile.
  Result<std::size_t> Read(std::uint64_t offset, std::span<char> into) const;
};

/// Reads a file tree in whatever form it has. No symbolic link is followed. One thread at a time
/// for a node; several readers of one tree do not meet.
class TreeReader {
 public:
  virtual ~TreeReader() = default;

  virtual Result<TreeNode> Root() const = 0;
  /// Nothing where the directory has no such name.
  virtual Result<std::optional<TreeNode>> Find(const TreeNode& directory,
                                               const std::string& name) const = 0;
  /// Sorted, without "." and "..".
  virtual Result<std::vector<std::string>> Names(const TreeNode& directory) const = 0;
  /// All that a directory or a regular file has; other kinds have none.
  virtual Result<Xattrs> ReadXattrs(const TreeNode& node) const = 0;
  virtual Result<std::string> LinkTarget(const TreeNode& link) const = 0;
  virtual Result<TreeContents> Contents(const TreeNode& file) const = 0;

 protected:
  TreeReader() = default;
};

/// A directory, and what is below it. `path` is for errors.
std::unique_ptr<TreeReader> ReadDirectory(std::string path);

/// All extended attributes of an open file or directory. `path` is for errors.
Result<Xattrs> ReadXattrs(int fd, const std::string& path);

}  // namespace crisp::archive
