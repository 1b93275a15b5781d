#include "services/imaged/store/erofs_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <vector>

#include "libs/archive/tar.h"
#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/imaged/store/erofs_format.h"
#include "services/imaged/store/layer_reader.h"

namespace crisp::imaged {
namespace {

using namespace erofs;  // NOLINT(google-build-using-namespace): the form that is written here

constexpr std::size_t kMaxXattrs = std::size_t{60} << 10U;  // of one file, all together
constexpr std::size_t kPiece = std::size_t{1} << 20U;

template <typename Number>
void Append(std::string& to, Number value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

/// A file, once for all its names.
struct File {
  struct Child {
    std::string name;
    std::size_t file = 0;
  };
  Inode inode;
  std::string xattrs;           // as they are behind the inode
  std::string link;             // a symbolic link's target
  std::vector<Child> children;  // of a directory, with "." and "..", sorted
  std::uint64_t at = 0;         // of the inode
  bool written = false;

  bool IsInline() const { return inode.format == kInline; }
  /// How much of the contents is behind the inode.
  std::uint64_t Tail() const { return IsInline() ? inode.size % kBlock : 0; }
  std::uint64_t Blocks() const {
    return IsInline() ? inode.size / kBlock : Align(inode.size, kBlock) / kBlock;
  }
};

std::uint8_t KindOf(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG: return 1;
    case S_IFDIR: return 2;
    case S_IFCHR: return 3;
    case S_IFBLK: return 4;
    case S_IFIFO: return 5;
    case S_IFSOCK: return 6;
    case S_IFLNK: return 7;
    default: return 0;
  }
}

/// Nothing: too many or too large.
std::optional<std::string> XattrBytes(const archive::Xattrs& xattrs) {
  std::string bytes(kXattrHeader, '\0');
  for (const auto& [name, value] : xattrs) {
    if (!archive::IsHarmlessXattr(name) && name != archive::kOpaqueXattr) continue;
    for (const XattrPrefix& prefix : kXattrPrefixes) {
      if (!name.starts_with(prefix.text)) continue;
      const std::string_view rest = std::string_view(name).substr(prefix.text.size());
      if (value.size() > kMaxXattrs) return std::nullopt;
      Append(bytes, static_cast<std::uint8_t>(rest.size()));
      Append(bytes, prefix.number);
      Append(bytes, static_cast<std::uint16_t>(value.size()));
      bytes.append(rest).append(value);
      bytes.resize(Align(bytes.size(), kXattrEntry));
    }
  }
  if (bytes.size() > kMaxXattrs) return std::nullopt;
  return bytes.size() == kXattrHeader ? std::string() : bytes;
}

class Writer {
 public:
  Writer(const CallContext& cc, const archive::TreeReader& tree, int image, std::size_t max_files)
      : cc_(cc), tree_(tree), image_(image), max_files_(max_files) {}

  Result<bool> All() {
    const archive::TreeNode root = CRISP_TRY(tree_.Root());
    const bool fits = CRISP_TRY(Scan(root, 0));
    if (!fits) return false;
    const std::uint64_t blocks = Place();
    if (blocks > std::numeric_limits<std::uint32_t>::max()) return false;
    Superblock super;
    super.root = static_cast<std::uint16_t>(files_.front().at / kSlot);
    super.inodes = files_.size();
    super.blocks = static_cast<std::uint32_t>(blocks);
    pending_.assign(kSuperOffset, '\0');
    Append(pending_, super);
    CRISP_TRY(Write(root, 0, 0));
    CRISP_TRY(Flush());
    if (::ftruncate(image_, static_cast<off_t>(blocks * kBlock)) != 0)
      return Status::Errno(errno, "write the image");
    return true;
  }

 private:
  /// What is known of a file before it has a place; directories with all that is below. False when
  /// the form does not hold it.
  Result<bool> Scan(const archive::TreeNode& node, std::size_t parent);
  /// Gives each its place, inodes first; how many blocks that makes.
  std::uint64_t Place();
  /// Inodes in the order of their places, and contents.
  Status Write(const archive::TreeNode& node, std::size_t file, std::size_t parent);
  Status WriteContents(const archive::TreeNode& node, File& file);
  std::string DirectoryBytes(const File& file) const;
  Status Flush();

  const CallContext& cc_;
  const archive::TreeReader& tree_;
  const int image_;
  const std::size_t max_files_;
  std::vector<File> files_;  // in the order in which a walk by name meets them; the root first
  std::map<ino_t, std::size_t> linked_;  // those with several names
  std::string pending_;                  // of the inodes: what is not in the file yet
  std::uint64_t flushed_ = 0;
};

Result<bool> Writer::Scan(const archive::TreeNode& node, std::size_t parent) {
  CRISP_TRY(cc_.Check());
  const struct stat& info = node.info;
  const std::size_t index = files_.size();
  if (index >= max_files_ || info.st_rdev > kMaxDevice) return false;
  File file;
  file.inode.mode = static_cast<std::uint16_t>(info.st_mode);
  file.inode.serial = static_cast<std::uint32_t>(index + 1);
  file.inode.uid = info.st_uid;
  file.inode.gid = info.st_gid;
  file.inode.seconds = info.st_mtim.tv_sec;
  file.inode.nanoseconds = static_cast<std::uint32_t>(info.st_mtim.tv_nsec);
  const archive::Xattrs found = CRISP_TRY(tree_.ReadXattrs(node));
  std::optional<std::string> xattrs = XattrBytes(found);
  if (!xattrs) return false;
  file.xattrs = *std::move(xattrs);
  if (!file.xattrs.empty())
    file.inode.xattr_words =
        static_cast<std::uint16_t>((file.xattrs.size() - kXattrHeader) / kXattrEntry + 1);
  if (S_ISREG(info.st_mode)) {
    file.inode.size = static_cast<std::uint64_t>(info.st_size);
  } else if (S_ISLNK(info.st_mode)) {
    file.link = CRISP_TRY(tree_.LinkTarget(node));
    file.inode.size = file.link.size();
  } else if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
    file.inode.block = static_cast<std::uint32_t>(info.st_rdev);
  }
  files_.push_back(std::move(file));
  if (!S_ISDIR(info.st_mode)) return true;

  std::vector<File::Child> children = {{".", index}, {"..", parent}};
  std::uint32_t links = 2;
  for (const std::string& name : CRISP_TRY(tree_.Names(node))) {
    const std::optional<archive::TreeNode> child = CRISP_TRY(tree_.Find(node, name));
    if (!child) return Aborted("{} vanished", name);
    const bool several = child->info.st_nlink > 1 && !S_ISDIR(child->info.st_mode);
    if (several && linked_.contains(child->info.st_ino)) {
      children.push_back({name, linked_[child->info.st_ino]});
      ++files_[children.back().file].inode.links;
      continue;
    }
    children.push_back({name, files_.size()});
    if (several) linked_[child->info.st_ino] = files_.size();
    if (S_ISDIR(child->info.st_mode)) ++links;
    const bool fits = CRISP_TRY(Scan(*child, index));
    if (!fits) return false;
  }
  std::sort(children.begin(), children.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  files_[index].children = std::move(children);
  files_[index].inode.links = links;
  files_[index].inode.size = DirectoryBytes(files_[index]).size();
  return true;
}

std::uint64_t Writer::Place() {
  std::uint64_t end = kSuperOffset + sizeof(Superblock);
  for (File& file : files_) {
    const std::uint64_t head = sizeof(Inode) + file.xattrs.size();
    const std::uint64_t tail = file.inode.size % kBlock;
    const auto fits = [head, tail](std::uint64_t at) {
      return (at + head) % kBlock + tail <= kBlock;
    };
    file.at = Align(end, kSlot);
    // What is behind an inode must not cross the end of a block.
    if (tail > 0 && !fits(file.at) && fits(Align(end, kBlock))) file.at = Align(end, kBlock);
    if (tail > 0 && fits(file.at)) file.inode.format = kInline;
    end = file.at + head + file.Tail();
  }
  std::uint64_t block = Align(end, kBlock) / kBlock;
  for (File& file : files_) {
    if (file.Blocks() == 0) continue;
    file.inode.block = static_cast<std::uint32_t>(block);
    block += file.Blocks();
  }
  return block;
}

std::string Writer::DirectoryBytes(const File& file) const {
  std::string bytes;
  for (auto first = file.children.begin(); first != file.children.end();) {
    std::uint64_t size = 0;
    auto last = first;
    while (last != file.children.end() && size + kEntry + last->name.size() <= kBlock)
      size += kEntry + last++->name.size();
    bytes.resize(Align(bytes.size(), kBlock));
    auto name_at = static_cast<std::uint16_t>((last - first) * static_cast<std::ptrdiff_t>(kEntry));
    std::string names;
    for (; first != last; ++first) {
      const File* child = first->file < files_.size() ? &files_[first->file] : nullptr;
      Append(bytes, child == nullptr ? std::uint64_t{0} : child->at / kSlot);
      Append(bytes, name_at);
      Append(bytes, child == nullptr ? std::uint8_t{0} : KindOf(child->inode.mode));
      Append(bytes, std::uint8_t{0});
      name_at = static_cast<std::uint16_t>(name_at + first->name.size());
      names += first->name;
    }
    bytes += names;
  }
  return bytes;
}

Status Writer::Flush() {
  if (::lseek(image_, static_cast<off_t>(flushed_), SEEK_SET) < 0)
    return Status::Errno(errno, "write the image");
  CRISP_TRY(os::WriteAll(image_, pending_, "the image"));
  flushed_ += pending_.size();
  pending_.clear();
  return Status::Ok();
}

/// Blocks to their place; what is in none is added to what is pending.
Status Writer::WriteContents(const archive::TreeNode& node, File& file) {
  if (file.inode.size == 0) return Status::Ok();
  const std::uint64_t in_blocks = file.inode.size - file.Tail();
  const auto place = static_cast<off_t>(std::uint64_t{file.inode.block} * kBlock);
  if (S_ISREG(file.inode.mode)) {
    archive::TreeContents contents = CRISP_TRY(tree_.Contents(node));
    std::string tail(file.Tail(), '\0');
    const std::size_t got = CRISP_TRY(contents.Read(in_blocks, tail));
    if (got != tail.size()) return DataLoss("a file became shorter while it was read");
    pending_ += tail;
    if (in_blocks == 0) return Status::Ok();
    return CopyExtent(cc_, contents.fd.get(), {0, in_blocks}, image_, place, "into the image");
  }
  const std::string bytes = S_ISDIR(file.inode.mode) ? DirectoryBytes(file) : file.link;
  pending_ += bytes.substr(in_blocks);
  if (in_blocks == 0) return Status::Ok();
  if (::pwrite(image_, bytes.data(), in_blocks, place) != static_cast<ssize_t>(in_blocks))
    return Status::Errno(errno, "write the image");
  return Status::Ok();
}

Status Writer::Write(const archive::TreeNode& node, std::size_t index, std::size_t parent) {
  CRISP_TRY(cc_.Check());
  File& file = files_[index];
  if (std::exchange(file.written, true)) return Status::Ok();
  pending_.resize(file.at - flushed_);
  Append(pending_, file.inode);
  pending_ += file.xattrs;
  CRISP_TRY(WriteContents(node, file));
  if (pending_.size() >= kPiece) CRISP_TRY(Flush());
  for (const File::Child& child : file.children) {
    if (child.file == index || child.file == parent) continue;
    const std::optional<archive::TreeNode> found = CRISP_TRY(tree_.Find(node, child.name));
    if (!found) return Aborted("{} vanished", child.name);
    CRISP_TRY(Write(*found, child.file, index));
  }
  file.children = {};
  return Status::Ok();
}

}  // namespace

Result<bool> WriteErofs(const CallContext& cc, const std::string& tree, const std::string& image,
                        std::size_t max_files) {
  const std::unique_ptr<archive::TreeReader> reader = CRISP_TRY(OpenLayer(tree));
  const os::UniqueFd fd = CRISP_TRY(os::Open(image, O_RDWR | O_CREAT | O_EXCL, 0600));
  Result<bool> written = Writer(cc, *reader, fd.get(), max_files).All();
  if (!written.ok() || !*written) CRISP_TRY(os::RemoveFile(image));
  return written;
}

}  // namespace crisp::imaged
