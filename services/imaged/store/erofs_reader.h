#pragma once

#include <memory>
#include <string>

#include "services/imaged/store/erofs_format.h"
#include "services/imaged/store/layer_reader.h"

namespace crisp::imaged {

/// Reads images that WriteErofs has made, which is less than EROFS can be. What is not as it should
/// be in one is kDataLoss: no number in it leads anywhere outside.
class ErofsReader final : public LayerReader {
 public:
  static Result<std::unique_ptr<LayerReader>> Open(const std::string& path);

  Result<LayerNode> Root() const override { return Node(root_); }
  Result<std::optional<LayerNode>> Find(const LayerNode& directory,
                                        const std::string& name) const override;
  Result<std::vector<std::string>> Names(const LayerNode& directory) const override;
  Result<Xattrs> ReadXattrs(const LayerNode& node) const override;
  Result<std::string> LinkTarget(const LayerNode& link) const override;
  Result<LayerContents> Contents(const LayerNode& file) const override;

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
  Result<LayerNode> Node(std::uint64_t number) const;
  Result<std::vector<LayerContents::Extent>> Extents(std::uint64_t number) const;
  /// A block of a directory's contents. The entries point into it.
  Result<std::string> Block(const LayerNode& directory, std::uint64_t index) const;
  Result<std::vector<Entry>> Entries(const std::string& block) const;

  const std::string path_;
  const os::UniqueFd fd_;
  const std::uint64_t size_;
  std::uint64_t root_ = 0;
};

}  // namespace crisp::imaged
