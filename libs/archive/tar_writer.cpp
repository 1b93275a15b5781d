#include "libs/archive/tar_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace crisp::archive {
namespace {

constexpr std::size_t kBlock = 512;
constexpr std::uint64_t kMaxSize = 077777777777;  // eleven octal digits
constexpr std::uint64_t kMaxId = 07777777;
constexpr std::size_t kMaxName = 100;
constexpr std::array<char, kBlock> kZeros{};

struct Block {
  std::array<char, kBlock> bytes{};

  void Text(std::size_t at, std::size_t size, std::string_view text) {
    std::memcpy(bytes.data() + at, text.data(), std::min(size, text.size()));
  }
  /// Octal digits and a zero byte; what does not fit is in the PAX header.
  void Number(std::size_t at, std::size_t size, std::uint64_t value) {
    Text(at, size, fmt::format("{:0{}o}", value, size - 1));
  }
};

char FlagOf(EntryType type) {
  switch (type) {
    case EntryType::kFile: return '0';
    case EntryType::kHardLink: return '1';
    case EntryType::kSymlink: return '2';
    case EntryType::kCharDevice: return '3';
    case EntryType::kBlockDevice: return '4';
    case EntryType::kDirectory: return '5';
    case EntryType::kFifo: return '6';
  }
  return '0';
}

std::string Ustar(const TarEntry& entry, std::string_view path, char flag, std::uint64_t size) {
  Block block;
  block.Text(0, kMaxName, path);
  block.Number(100, 8, entry.mode & 07777U);
  block.Number(108, 8, entry.uid > kMaxId ? 0 : entry.uid);
  block.Number(116, 8, entry.gid > kMaxId ? 0 : entry.gid);
  block.Number(124, 12, size > kMaxSize ? 0 : size);
  const bool old =
      entry.mtime_seconds < 0 || static_cast<std::uint64_t>(entry.mtime_seconds) > kMaxSize;
  block.Number(136, 12, old ? 0 : static_cast<std::uint64_t>(entry.mtime_seconds));
  block.Text(148, 8, "        ");
  block.bytes[156] = flag;
  if (flag == '1' || flag == '2') block.Text(157, kMaxName, entry.link);
  block.Text(257, 8, std::string_view("ustar\00000", 8));
  if (flag == '3' || flag == '4') {
    block.Number(329, 8, entry.device_major);
    block.Number(337, 8, entry.device_minor);
  }
  unsigned sum = 0;
  for (const char c : block.bytes) sum += static_cast<unsigned char>(c);
  block.Text(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  return {block.bytes.data(), block.bytes.size()};
}

/// "length key=value\n", where the length counts itself.
std::string Record(std::string_view key, std::string_view value) {
  const std::size_t rest = key.size() + value.size() + 3;
  std::size_t length = rest + 1;
  while (std::to_string(length).size() + rest > length) ++length;
  return fmt::format("{} {}={}\n", length, key, value);
}

std::string PaxRecords(const TarEntry& entry, std::string_view path, std::uint64_t size) {
  std::string records;
  if (path.size() > kMaxName) records += Record("path", path);
  if (entry.link.size() > kMaxName) records += Record("linkpath", entry.link);
  if (size > kMaxSize) records += Record("size", std::to_string(size));
  if (entry.uid > kMaxId) records += Record("uid", std::to_string(entry.uid));
  if (entry.gid > kMaxId) records += Record("gid", std::to_string(entry.gid));
  if (entry.mtime_nanoseconds != 0 || entry.mtime_seconds < 0 ||
      static_cast<std::uint64_t>(entry.mtime_seconds) > kMaxSize) {
    // A negative time with a fraction counts from the second below it.
    auto seconds = static_cast<std::uint64_t>(entry.mtime_seconds);
    std::uint32_t nanoseconds = entry.mtime_nanoseconds;
    std::string sign;
    if (entry.mtime_seconds < 0) {
      sign = "-";
      seconds = 0 - seconds;
      if (nanoseconds != 0) {
        --seconds;
        nanoseconds = 1'000'000'000 - nanoseconds;
      }
    }
    records +=
        Record("mtime", nanoseconds == 0 ? fmt::format("{}{}", sign, seconds)
                                         : fmt::format("{}{}.{:09}", sign, seconds, nanoseconds));
  }
  for (const auto& [name, value] : entry.xattrs) records += Record("SCHILY.xattr." + name, value);
  return records;
}

}  // namespace

Result<std::string> TarHeader(const TarEntry& entry) {
  if (entry.path.find('\0') != std::string::npos || entry.link.find('\0') != std::string::npos)
    return InvalidArgument("a name with a zero byte");
  std::string path = entry.path;
  if (entry.type == EntryType::kDirectory && !path.ends_with('/')) path += '/';
  const std::uint64_t size = entry.type == EntryType::kFile ? entry.size : 0;
  std::string blocks;
  if (const std::string records = PaxRecords(entry, path, size); !records.empty()) {
    blocks = Ustar(TarEntry{.mode = 0644}, "PaxHeaders/0", 'x', records.size());
    blocks += records;
    blocks += TarPadding(records.size());
  }
  return blocks + Ustar(entry, path, FlagOf(entry.type), size);
}

std::string_view TarPadding(std::uint64_t size) {
  const std::size_t over = static_cast<std::size_t>(size % kBlock);
  return {kZeros.data(), over == 0 ? 0 : kBlock - over};
}

std::string TarEnd() { return std::string(2 * kBlock, '\0'); }

}  // namespace crisp::archive
