#include "services/imaged/store/file_index.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::imaged {
namespace {

// The file: kMagic, the number of entries (8 bytes), the entries by digest and size, the paths.
// Numbers are in the machine's own order: an index never leaves it.
constexpr std::string_view kMagic = "crispfi1";
constexpr std::size_t kHead = 16;
constexpr std::size_t kEntry = 48;           // digest, size (8), place (4) and size (4) of its path
constexpr std::size_t kEntriesAtOnce = 512;  // 24 KiB
constexpr std::size_t kMaxPath = 4096;
constexpr std::size_t kMaxPaths = std::size_t{32} << 20U;  // of a layer

/// "./usr//bin/x" → "usr//bin/x"; "" for what leads nowhere.
std::string_view Relative(std::string_view name) {
  while (name.starts_with("./") || name.starts_with("/"))
    name.remove_prefix(name.front() == '/' ? 1 : 2);
  return name;
}

template <typename T>
T NumberAt(const char* bytes) {
  T value{};
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

template <typename T>
void Append(std::string& text, const T& value) {
  text.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

void FileIndexWriter::Add(const digest::Digest& digest, std::uint64_t size, std::string_view name) {
  const std::string_view path = Relative(name);
  if (path.empty() || path.size() > kMaxPath || path.find('\0') != path.npos ||
      paths_.size() + path.size() > kMaxPaths)
    return;
  entries_.push_back({.file = {digest.Bytes(), size},
                      .path_at = static_cast<std::uint32_t>(paths_.size()),
                      .path_size = static_cast<std::uint32_t>(path.size())});
  paths_ += path;
}

Status FileIndexWriter::Write(const std::string& path) {
  if (entries_.empty()) return Status::Ok();
  std::sort(entries_.begin(), entries_.end(),
            [](const Entry& a, const Entry& b) { return a.file < b.file; });
  const os::UniqueFd fd = CRISP_TRY(os::Open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600));
  std::string text(kMagic);
  Append(text, static_cast<std::uint64_t>(entries_.size()));
  for (const Entry& entry : entries_) {
    Append(text, entry.file.digest);
    Append(text, entry.file.size);
    Append(text, entry.path_at);
    Append(text, entry.path_size);
    if (text.size() < kEntry * kEntriesAtOnce) continue;
    CRISP_TRY(os::WriteAll(fd.get(), text, path));
    text.clear();
  }
  CRISP_TRY(os::WriteAll(fd.get(), text, path));
  return os::WriteAll(fd.get(), paths_, path);
}

Status LookUpFiles(const std::string& index, std::span<const WantedFile> wanted,
                   const std::function<void(std::size_t number, std::string path)>& found) {
  const Result<os::UniqueFd> fd = os::Open(index, O_RDONLY | O_NOFOLLOW);
  if (fd.code() == Code::kNotFound) return Status::Ok();
  if (!fd.ok()) return fd.status();
  struct stat info {};
  if (::fstat(fd->get(), &info) != 0) return Status::Errno(errno, "stat {}", index);
  const auto size = static_cast<std::uint64_t>(info.st_size);
  std::array<char, kHead> head{};
  CRISP_TRY(os::ReadAt(fd->get(), 0, head, index));
  const auto count = NumberAt<std::uint64_t>(head.data() + kMagic.size());
  if (std::string_view(head.data(), kMagic.size()) != kMagic || count > (size - kHead) / kEntry)
    return DataLoss("{}: is no index", index);
  const std::uint64_t paths = kHead + count * kEntry;
  std::string entries(kEntry * kEntriesAtOnce, '\0');
  std::size_t next = 0;  // of the wanted
  for (std::uint64_t at = 0; at < count && next < wanted.size(); at += kEntriesAtOnce) {
    const std::size_t here = std::min<std::uint64_t>(kEntriesAtOnce, count - at);
    CRISP_TRY(
        os::ReadAt(fd->get(), kHead + at * kEntry, std::span(entries).first(here * kEntry), index));
    for (std::size_t i = 0; i < here && next < wanted.size(); ++i) {
      const char* const entry = entries.data() + i * kEntry;
      WantedFile file;
      std::memcpy(file.digest.data(), entry, file.digest.size());
      file.size = NumberAt<std::uint64_t>(entry + 32);
      while (next < wanted.size() && wanted[next] < file) ++next;
      if (next == wanted.size() || wanted[next] != file) continue;
      const std::uint64_t path_at = paths + NumberAt<std::uint32_t>(entry + 40);
      const auto path_size = NumberAt<std::uint32_t>(entry + 44);
      if (path_size > kMaxPath) return DataLoss("{}: is no index", index);
      std::string path(path_size, '\0');
      CRISP_TRY(os::ReadAt(fd->get(), path_at, path, index));
      found(next++, std::move(path));
    }
  }
  return Status::Ok();
}

}  // namespace crisp::imaged
