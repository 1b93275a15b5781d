#pragma once

#include <memory>
#include <string>

#include "services/imaged/store/erofs_format.h"
#include "services/imaged/store/layer_reader.h"

namespace crisp::imaged {

/// Reads images that WriteErofs has made, which is less than EROFS can be. What is not as it should
/// be in one is kDataLoss: no number in it leads anywhere outside.
class ErofsReader final : public archive::TreeReader {
 public:
  static Result<std::unique_ptr<archive::TreeReader>> Open(const std::string& path);

  Result<archive::TreeNode> Root() const override { return Node(root_); }
  Result<std::optional<archive::TreeNode>> Find(const archive::TreeNode& directory,
                                                const std::string& name) const override;
  Result<std::vector<std::string>> Names(const archive::TreeNode& directory) const override;
  Result<archive::Xattrs> ReadXattrs(const archive::TreeNode& node) const override;
  Result<std::string> LinkTarget(const archive::TreeNode& link) const override;
  Result<archive::TreeContents> Contents(const archive::TreeNode& file) const override;

 private:
  struct Entry {
    std::string_view name;
    std::uint64_t inode = 0;
  };

  ErofsReader(std::string path, os::UniqueFd fd, std::uint64_t size)
      : path_(std::move(path)), fd_(std::move(fd)), size_(size) {}
  Status Damaged(std::string_view what) const;
  /// `size` bytes at an offset of the image.
  Result<std::string> Bytes(std::uint64_t offset, std::uint64_t size) const;
  Result<erofs::Inode> InodeAt(std::uint64_t number) const;
  Result<archive::TreeNode> Node(std::uint64_t number) const;
  Result<std::vector<archive::TreeContents::Extent>> Extents(std::uint64_t number) const;
  /// A block of a directory's contents. The entries point into it.
  Result<std::string> Block(const archive::TreeNode& directory, std::uint64_t index) const;
  Result<std::vector<Entry>> Entries(const std::string& block) const;

  const std::string path_;
  const os::UniqueFd fd_;
  const std::uint64_t size_;
  std::uint64_t root_ = 0;
};

}  // namespace crisp::imaged
