#include "services/imaged/store/erofs_reader.h"

#include <fcntl.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::imaged {

using namespace erofs;  // NOLINT(google-build-using-namespace): the form that is read here

namespace {

/// A number or a struct at an offset; the caller knows that it is there.
template <typename Value>
Value At(std::string_view bytes, std::uint64_t offset) {
  Value value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

std::uint64_t XattrSize(const Inode& inode) {
  if (inode.xattr_words == 0) return 0;
  return kXattrHeader + (std::uint64_t{inode.xattr_words} - 1) * kXattrEntry;
}

}  // namespace

Result<std::unique_ptr<archive::TreeReader>> ErofsReader::Open(const std::string& path) {
  os::UniqueFd fd = CRISP_TRY(os::Open(path, O_RDONLY | O_NOFOLLOW));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return Status::Errno(errno, "stat {}", path);
  std::unique_ptr<ErofsReader> reader(
      new ErofsReader(path, std::move(fd), static_cast<std::uint64_t>(info.st_size)));
  const std::string head = CRISP_TRY(reader->Bytes(kSuperOffset, sizeof(Superblock)));
  const auto super = At<Superblock>(head, 0);
  if (super.magic != kMagic || super.feature_incompat != 0 || super.block_bits != 12 ||
      super.inodes_block != 0 || super.blocks * kBlock != reader->size_)
    return reader->Damaged("its superblock is not one of ours");
  reader->root_ = super.root;
  return std::unique_ptr<archive::TreeReader>(std::move(reader));
}

Status ErofsReader::Damaged(std::string_view what) const {
  return DataLoss("the layer's image {} is damaged: {}", path_, what);
}

Result<std::string> ErofsReader::Bytes(std::uint64_t offset, std::uint64_t size) const {
  if (offset > size_ || size > size_ - offset) return Damaged("something lies behind its end");
  std::string bytes(size, '\0');
  CRISP_TRY(os::ReadAt(fd_.get(), offset, bytes, path_));
  return bytes;
}

Result<Inode> ErofsReader::InodeAt(std::uint64_t number) const {
  if (number > size_ / kSlot) return Damaged("an inode lies behind its end");
  const std::string bytes = CRISP_TRY(Bytes(number * kSlot, sizeof(Inode)));
  const auto inode = At<Inode>(bytes, 0);
  if (inode.format != kPlain && inode.format != kInline)
    return Damaged("an inode has a form of others");
  return inode;
}

Result<archive::TreeNode> ErofsReader::Node(std::uint64_t number) const {
  const Inode inode = CRISP_TRY(InodeAt(number));
  archive::TreeNode node;
  node.place = number;
  node.info.st_ino = number;
  node.info.st_mode = inode.mode;
  node.info.st_nlink = inode.links;
  node.info.st_uid = inode.uid;
  node.info.st_gid = inode.gid;
  if (S_ISCHR(inode.mode) || S_ISBLK(inode.mode)) node.info.st_rdev = inode.block;
  node.info.st_size = static_cast<off_t>(inode.size);
  constexpr std::uint64_t kStatBlock = 512;
  node.info.st_blocks = static_cast<blkcnt_t>(Align(inode.size, kBlock) / kStatBlock);
  node.info.st_mtim = {inode.seconds, static_cast<long>(inode.nanoseconds)};
  node.info.st_atim = node.info.st_mtim;
  node.info.st_ctim = node.info.st_mtim;
  return node;
}

Result<std::vector<archive::TreeContents::Extent>> ErofsReader::Extents(
    std::uint64_t number) const {
  const Inode inode = CRISP_TRY(InodeAt(number));
  const std::uint64_t tail = inode.format == kInline ? inode.size % kBlock : 0;
  const std::uint64_t blocks_at = std::uint64_t{inode.block} * kBlock;
  const std::uint64_t tail_at = number * kSlot + sizeof(Inode) + XattrSize(inode);
  std::vector<archive::TreeContents::Extent> extents;
  if (inode.size > tail) extents.push_back({blocks_at, inode.size - tail});
  if (tail > 0) extents.push_back({tail_at, tail});
  for (const archive::TreeContents::Extent& extent : extents)
    if (extent.offset > size_ || extent.size > size_ - extent.offset)
      return Damaged("a file's contents lie behind its end");
  return extents;
}

Result<archive::TreeContents> ErofsReader::Contents(const archive::TreeNode& file) const {
  archive::TreeContents contents;
  contents.extents = CRISP_TRY(Extents(file.place));
  contents.fd = os::UniqueFd(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!contents.fd) return Status::Errno(errno, "open {}", path_);
  return contents;
}

Result<std::string> ErofsReader::LinkTarget(const archive::TreeNode& link) const {
  if (link.info.st_size > PATH_MAX) return Damaged("a link is too long");
  std::string target;
  for (const archive::TreeContents::Extent& extent : CRISP_TRY(Extents(link.place)))
    target += CRISP_TRY(Bytes(extent.offset, extent.size));
  return target;
}

Result<archive::Xattrs> ErofsReader::ReadXattrs(const archive::TreeNode& node) const {
  archive::Xattrs found;
  const Inode inode = CRISP_TRY(InodeAt(node.place));
  const std::uint64_t size = XattrSize(inode);
  if (size == 0) return found;
  const std::string bytes = CRISP_TRY(Bytes(node.place * kSlot + sizeof(Inode), size));
  for (std::uint64_t at = kXattrHeader; at + kXattrEntry <= size;) {
    const std::uint64_t name_size = At<std::uint8_t>(bytes, at);
    const auto prefix = At<std::uint8_t>(bytes, at + 1);
    const std::uint64_t value_size = At<std::uint16_t>(bytes, at + 2);
    at += kXattrEntry;
    if (name_size + value_size > size - at) return Damaged("an attribute is too long");
    const auto* known = std::find_if(kXattrPrefixes.begin(), kXattrPrefixes.end(),
                                     [prefix](const auto& each) { return each.number == prefix; });
    if (known == kXattrPrefixes.end()) return Damaged("an attribute has a name of others");
    found[std::string(known->text) + bytes.substr(at, name_size)] =
        bytes.substr(at + name_size, value_size);
    at = Align(at + name_size + value_size, kXattrEntry);
  }
  return found;
}

Result<std::string> ErofsReader::Block(const archive::TreeNode& directory,
                                       std::uint64_t index) const {
  const auto size = static_cast<std::uint64_t>(directory.info.st_size);
  std::uint64_t start = 0;
  for (const archive::TreeContents::Extent& extent : CRISP_TRY(Extents(directory.place))) {
    // A block is in one of the two, as the second begins where whole ones end.
    if (index * kBlock < start + extent.size)
      return Bytes(extent.offset + (index * kBlock - start),
                   std::min(kBlock, size - index * kBlock));
    start += extent.size;
  }
  return Damaged("a directory is too short");
}

Result<std::vector<ErofsReader::Entry>> ErofsReader::Entries(const std::string& block) const {
  const auto where = [&block](std::uint64_t entry) {
    return std::uint64_t{At<std::uint16_t>(block, entry * kEntry + sizeof(std::uint64_t))};
  };
  if (block.size() < kEntry || where(0) < kEntry || where(0) > block.size())
    return Damaged("a directory makes no sense");
  const std::uint64_t count = where(0) / kEntry;
  std::vector<Entry> entries;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t begin = where(i);
    const std::uint64_t end = i + 1 < count ? where(i + 1) : block.size();
    if (begin < count * kEntry || end < begin || end > block.size())
      return Damaged("a directory makes no sense");
    std::string_view name = std::string_view(block).substr(begin, end - begin);
    name = name.substr(0, name.find('\0'));  // the last one of a block that is not full
    if (name.empty() || name.find('/') != std::string_view::npos)
      return Damaged("a directory makes no sense");
    entries.push_back({name, At<std::uint64_t>(block, i * kEntry)});
  }
  return entries;
}

Result<std::vector<std::string>> ErofsReader::Names(const archive::TreeNode& directory) const {
  std::vector<std::string> names;
  const std::uint64_t blocks =
      Align(static_cast<std::uint64_t>(directory.info.st_size), kBlock) / kBlock;
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const std::string block = CRISP_TRY(Block(directory, i));
    for (const Entry& entry : CRISP_TRY(Entries(block)))
      if (entry.name != "." && entry.name != "..") names.emplace_back(entry.name);
  }
  return names;
}

Result<std::optional<archive::TreeNode>> ErofsReader::Find(const archive::TreeNode& directory,
                                                           const std::string& name) const {
  if (!S_ISDIR(directory.info.st_mode)) return Status::FromErrno(ENOTDIR, path_);
  // The last block that does not begin behind the name.
  std::uint64_t low = 0;
  std::uint64_t high = Align(static_cast<std::uint64_t>(directory.info.st_size), kBlock) / kBlock;
  while (high - low > 1) {
    const std::uint64_t middle = low + (high - low) / 2;
    const std::string block = CRISP_TRY(Block(directory, middle));
    const std::vector<Entry> entries = CRISP_TRY(Entries(block));
    (entries.front().name <= name ? low : high) = middle;
  }
  if (high == 0) return std::optional<archive::TreeNode>();
  const std::string block = CRISP_TRY(Block(directory, low));
  for (const Entry& entry : CRISP_TRY(Entries(block))) {
    if (entry.name != name) continue;
    archive::TreeNode node = CRISP_TRY(Node(entry.inode));
    // Those below come later, so that no way down has no end.
    if (S_ISDIR(node.info.st_mode) && entry.inode <= directory.place)
      return Damaged("a directory is below itself");
    return std::optional<archive::TreeNode>(std::move(node));
  }
  return std::optional<archive::TreeNode>();
}

}  // namespace crisp::imaged
