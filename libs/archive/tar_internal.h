#pragma once

#include <charconv>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/archive/tar.h"
#include "libs/base/try.h"

// What the parts of the tar reader share: the header's fields and their numbers.
namespace crisp::archive {
namespace internal {

inline constexpr std::size_t kBlock = 512;
// No file system of ours holds a larger file, and sums of such sizes stay far from overflow.
inline constexpr std::uint64_t kMaxSize = std::uint64_t{1} << 50U;

struct Slice {
  std::size_t offset;
  std::size_t size;
};
// The ustar header, field by field (POSIX.1-2017, pax).
inline constexpr Slice kName{0, 100};
inline constexpr Slice kMode{100, 8};
inline constexpr Slice kUid{108, 8};
inline constexpr Slice kGid{116, 8};
inline constexpr Slice kSize{124, 12};
inline constexpr Slice kMtime{136, 12};
inline constexpr Slice kChecksum{148, 8};
inline constexpr std::size_t kTypeFlag = 156;
inline constexpr Slice kLink{157, 100};
inline constexpr Slice kMagic{257, 6};
inline constexpr Slice kMajor{329, 8};
inline constexpr Slice kMinor{337, 8};
inline constexpr Slice kPrefix{345, 155};
// GNU's old sparse header: four extents, "more follow in blocks of their own", the real size.
inline constexpr std::size_t kSparseExtents = 386;
inline constexpr int kSparseInHeader = 4;
inline constexpr std::size_t kSparseMore = 482;
inline constexpr Slice kSparseSize{483, 12};
inline constexpr int kSparseInBlock = 21;
inline constexpr std::size_t kSparseBlockMore = 504;
inline constexpr std::size_t kSparseNumber = 12;

inline std::string_view Field(const char* block, Slice slice) {
  return {block + slice.offset, slice.size};
}

inline std::string_view UntilNul(std::string_view text) { return text.substr(0, text.find('\0')); }

/// Octal digits, or GNU's base-256 (top bit of the first byte set; two's complement).
inline Result<std::int64_t> Number(std::string_view field, std::string_view what) {
  const auto first = static_cast<unsigned char>(field.front());
  if ((first & 0x80U) != 0) {
    const bool negative = (first & 0x40U) != 0;
    std::uint64_t value = negative ? ~std::uint64_t{0} : 0;
    for (std::size_t i = 0; i < field.size(); ++i) {
      auto byte = static_cast<std::uint64_t>(static_cast<unsigned char>(field[i]));
      if (i == 0) byte = negative ? (byte | 0x80U) : (byte & 0x7FU);
      const std::uint64_t lost = value >> 56U;
      if (lost != (negative ? 0xFFU : 0U)) return DataLoss("tar: the {} is too large", what);
      value = (value << 8U) | byte;
    }
    return static_cast<std::int64_t>(value);
  }
  std::string_view digits = field;
  while (!digits.empty() && digits.front() == ' ') digits.remove_prefix(1);
  digits = digits.substr(0, digits.find_first_of(std::string_view(" \0", 2)));
  if (digits.empty()) return std::int64_t{0};
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 8);
  if (error != std::errc() || end != digits.data() + digits.size() || value < 0)
    return DataLoss("tar: the {} is not a number", what);
  return value;
}

inline Result<std::int64_t> Decimal(std::string_view text, std::string_view what) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 10);
  if (error != std::errc() || end != text.data() + text.size())
    return DataLoss("tar: the PAX {} is not a number", what);
  return value;
}

inline Result<std::uint32_t> Id(std::int64_t value, std::string_view what) {
  if (value < 0 || value >= std::numeric_limits<std::uint32_t>::max())
    return DataLoss("tar: the {} {} is out of range", what, value);
  return static_cast<std::uint32_t>(value);
}

inline Result<std::uint64_t> Size(std::int64_t value) {
  if (value < 0 || static_cast<std::uint64_t>(value) > kMaxSize)
    return DataLoss("tar: an entry's size {} is out of range", value);
  return static_cast<std::uint64_t>(value);
}

/// A decimal number that is a size or an offset.
inline Result<std::uint64_t> DecimalSize(std::string_view text, std::string_view what) {
  const std::int64_t value = CRISP_TRY(Decimal(text, what));
  return Size(value);
}

inline std::uint64_t PaddingOf(std::uint64_t size) { return (kBlock - size % kBlock) % kBlock; }

}  // namespace internal

/// What the extended headers before an entry say about it.
struct TarReader::Pax {
  std::optional<std::string> path;
  std::optional<std::string> link;
  std::optional<std::int64_t> size;
  std::optional<std::int64_t> uid;
  std::optional<std::int64_t> gid;
  std::optional<std::int64_t> mtime_seconds;
  std::uint32_t mtime_nanoseconds = 0;
  std::map<std::string, std::string> xattrs;
  // Sparse files: 0.0 says offset and numbytes again and again, 0.1 all in one map; 1.0 has the map
  // before the contents.
  bool sparse = false;
  bool sparse_map_in_data = false;
  std::optional<std::string> sparse_name;
  std::optional<std::int64_t> sparse_size;
  std::vector<Extent> extents;

  Status SetSparse(std::string_view key, std::string_view value);
  Status Set(std::string_view key, std::string_view value);
  Status SetTime(std::string_view value);
};

}  // namespace crisp::archive
