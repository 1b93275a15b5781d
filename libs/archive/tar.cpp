#include "libs/archive/tar.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>

#include "libs/base/try.h"

namespace crisp::archive {
namespace {

constexpr std::size_t kBlock = 512;
// No file system of ours holds a larger file, and sums of such sizes stay far from overflow.
constexpr std::uint64_t kMaxSize = std::uint64_t{1} << 50U;

struct Slice {
  std::size_t offset;
  std::size_t size;
};
// The ustar header, field by field (POSIX.1-2017, pax).
constexpr Slice kName{0, 100};
constexpr Slice kMode{100, 8};
constexpr Slice kUid{108, 8};
constexpr Slice kGid{116, 8};
constexpr Slice kSize{124, 12};
constexpr Slice kMtime{136, 12};
constexpr Slice kChecksum{148, 8};
constexpr std::size_t kTypeFlag = 156;
constexpr Slice kLink{157, 100};
constexpr Slice kMagic{257, 6};
constexpr Slice kMajor{329, 8};
constexpr Slice kMinor{337, 8};
constexpr Slice kPrefix{345, 155};
// GNU's old sparse header: four extents, "more follow in blocks of their own", the real size.
constexpr std::size_t kSparseExtents = 386;
constexpr int kSparseInHeader = 4;
constexpr std::size_t kSparseMore = 482;
constexpr Slice kSparseSize{483, 12};
constexpr int kSparseInBlock = 21;
constexpr std::size_t kSparseBlockMore = 504;
constexpr std::size_t kSparseNumber = 12;

std::string_view Field(const char* block, Slice slice) {
  return {block + slice.offset, slice.size};
}

std::string_view UntilNul(std::string_view text) { return text.substr(0, text.find('\0')); }

/// Octal digits, or GNU's base-256 (top bit of the first byte set; two's complement).
Result<std::int64_t> Number(std::string_view field, std::string_view what) {
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

Result<std::int64_t> Decimal(std::string_view text, std::string_view what) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 10);
  if (error != std::errc() || end != text.data() + text.size())
    return DataLoss("tar: the PAX {} is not a number", what);
  return value;
}

Result<std::uint32_t> Id(std::int64_t value, std::string_view what) {
  if (value < 0 || value >= std::numeric_limits<std::uint32_t>::max())
    return DataLoss("tar: the {} {} is out of range", what, value);
  return static_cast<std::uint32_t>(value);
}

Result<std::uint64_t> Size(std::int64_t value) {
  if (value < 0 || static_cast<std::uint64_t>(value) > kMaxSize)
    return DataLoss("tar: an entry's size {} is out of range", value);
  return static_cast<std::uint64_t>(value);
}

/// A decimal number that is a size or an offset.
Result<std::uint64_t> DecimalSize(std::string_view text, std::string_view what) {
  const std::int64_t value = CRISP_TRY(Decimal(text, what));
  return Size(value);
}

bool IsZero(const char* block) {
  return std::all_of(block, block + kBlock, [](char c) { return c == '\0'; });
}

Status CheckSum(const char* block) {
  std::int64_t unsigned_sum = 0;
  std::int64_t signed_sum = 0;  // some old tars summed signed chars
  for (std::size_t i = 0; i < kBlock; ++i) {
    const bool inside = i >= kChecksum.offset && i < kChecksum.offset + kChecksum.size;
    const char c = inside ? ' ' : block[i];
    unsigned_sum += static_cast<unsigned char>(c);
    signed_sum += static_cast<signed char>(c);
  }
  const std::int64_t stored = CRISP_TRY(Number(Field(block, kChecksum), "checksum"));
  if (stored != unsigned_sum && stored != signed_sum)
    return DataLoss(
        "tar: a header's checksum is wrong, this is not a tar archive or it is damaged");
  return Status::Ok();
}

std::uint64_t PaddingOf(std::uint64_t size) { return (kBlock - size % kBlock) % kBlock; }

}  // namespace

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

Status TarReader::Pax::SetTime(std::string_view value) {
  const std::size_t point = value.find('.');
  mtime_seconds = CRISP_TRY(Decimal(value.substr(0, point), "mtime"));
  std::uint32_t nanoseconds = 0;
  if (point != std::string_view::npos) {
    std::uint32_t unit = 100'000'000;
    for (const char c : value.substr(point + 1)) {
      if (c < '0' || c > '9') return DataLoss("tar: the PAX mtime is not a number");
      nanoseconds += static_cast<std::uint32_t>(c - '0') * unit;
      unit /= 10;
    }
  }
  mtime_nanoseconds = nanoseconds;
  if (value.starts_with('-') && nanoseconds > 0) {  // -1.25 s is -2 s and 750 ms
    *mtime_seconds -= 1;
    mtime_nanoseconds = 1'000'000'000 - nanoseconds;
  }
  return Status::Ok();
}

Status TarReader::Pax::SetSparse(std::string_view key, std::string_view value) {
  sparse = true;
  if (key == "name") {
    sparse_name = std::string(value);
  } else if (key == "size" || key == "realsize") {
    sparse_size = CRISP_TRY(Decimal(value, "sparse size"));
  } else if (key == "major") {
    sparse_map_in_data = CRISP_TRY(Decimal(value, "sparse version")) == 1;
  } else if (key == "offset") {
    extents.push_back({CRISP_TRY(DecimalSize(value, "sparse offset")), 0});
  } else if (key == "numbytes") {
    if (extents.empty()) return DataLoss("tar: a sparse extent has no offset");
    extents.back().size = CRISP_TRY(DecimalSize(value, "sparse size"));
  } else if (key == "map") {
    extents.clear();
    while (!value.empty()) {
      std::array<std::uint64_t, 2> pair{};
      for (std::uint64_t& number : pair) {
        const std::size_t comma = std::min(value.find(','), value.size());
        number = CRISP_TRY(DecimalSize(value.substr(0, comma), "sparse map"));
        value.remove_prefix(std::min(comma + 1, value.size()));
      }
      extents.push_back({pair[0], pair[1]});
    }
  }
  return Status::Ok();
}

Status TarReader::Pax::Set(std::string_view key, std::string_view value) {
  constexpr std::string_view kXattr = "SCHILY.xattr.";
  constexpr std::string_view kSparse = "GNU.sparse.";
  // An empty value takes back what was said before.
  if (value.empty() && !key.starts_with(kXattr)) {
    if (key == "path") path.reset();
    if (key == "linkpath") link.reset();
    if (key == "size") size.reset();
    if (key == "uid") uid.reset();
    if (key == "gid") gid.reset();
    if (key == "mtime") mtime_seconds.reset();
    return Status::Ok();
  }
  if (key == "path") {
    path = std::string(value);
  } else if (key == "linkpath") {
    link = std::string(value);
  } else if (key == "size") {
    size = CRISP_TRY(Decimal(value, "size"));
  } else if (key == "uid") {
    uid = CRISP_TRY(Decimal(value, "uid"));
  } else if (key == "gid") {
    gid = CRISP_TRY(Decimal(value, "gid"));
  } else if (key == "mtime") {
    return SetTime(value);
  } else if (key.starts_with(kXattr)) {
    if (key.size() == kXattr.size()) return DataLoss("tar: an extended attribute has no name");
    xattrs[std::string(key.substr(kXattr.size()))] = std::string(value);
  } else if (key.starts_with(kSparse)) {
    return SetSparse(key.substr(kSparse.size()), value);
  }
  return Status::Ok();
}

Result<std::string_view> TarReader::Take(std::uint64_t at_most) {
  if (piece_.empty() && !source_ended_) {
    piece_ = CRISP_TRY(source_.Next());
    source_ended_ = piece_.empty();
  }
  const std::string_view taken =
      piece_.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(at_most, piece_.size())));
  piece_.remove_prefix(taken.size());
  return taken;
}

/// False when the source ends before the first byte.
Result<bool> TarReader::ReadBlock(char* block) {
  std::size_t have = 0;
  while (have < kBlock) {
    const std::string_view taken = CRISP_TRY(Take(kBlock - have));
    if (taken.empty()) {
      if (have == 0) return false;
      return DataLoss("tar: the archive is cut short");
    }
    std::memcpy(block + have, taken.data(), taken.size());
    have += taken.size();
  }
  return true;
}

Status TarReader::Skip(std::uint64_t count) {
  while (count > 0) {
    const std::string_view taken = CRISP_TRY(Take(count));
    if (taken.empty()) return DataLoss("tar: the archive is cut short");
    count -= taken.size();
  }
  return Status::Ok();
}

Status TarReader::SkipEntry() {
  CRISP_TRY(Skip(left_ + padding_));
  left_ = 0;
  padding_ = 0;
  return Status::Ok();
}

/// The caller has checked the size.
Result<std::string> TarReader::ReadText(std::uint64_t size) {
  std::string text;
  text.reserve(static_cast<std::size_t>(size));
  while (text.size() < size) {
    const std::string_view taken = CRISP_TRY(Take(size - text.size()));
    if (taken.empty()) return DataLoss("tar: the archive is cut short");
    text.append(taken);
  }
  CRISP_TRY(Skip(PaddingOf(size)));
  return text;
}

Status TarReader::ReadPax(std::uint64_t size, Pax& pax) {
  const std::string text = CRISP_TRY(ReadText(size));
  std::string_view rest = text;
  while (!rest.empty() && rest.front() != '\0') {
    // "<length of the whole record> <key>=<value>\n"
    std::size_t length = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), length, 10);
    const auto digits = static_cast<std::size_t>(end - rest.data());
    if (error != std::errc() || length > rest.size() || length < digits + 3 ||
        rest[digits] != ' ' || rest[length - 1] != '\n')
      return DataLoss("tar: a PAX header is malformed");
    const std::string_view record = rest.substr(digits + 1, length - digits - 2);
    const std::size_t equals = record.find('=');
    if (equals == std::string_view::npos || equals == 0)
      return DataLoss("tar: a PAX header is malformed");
    CRISP_TRY(pax.Set(record.substr(0, equals), record.substr(equals + 1)));
    rest.remove_prefix(length);
  }
  return Status::Ok();
}

Status TarReader::FillAttributes(const char* block, const Pax& pax, TarEntry& entry) {
  const std::int64_t mode = CRISP_TRY(Number(Field(block, kMode), "mode"));
  entry.mode = static_cast<std::uint32_t>(mode) & 07777U;
  const std::int64_t uid = pax.uid ? *pax.uid : CRISP_TRY(Number(Field(block, kUid), "uid"));
  const std::int64_t gid = pax.gid ? *pax.gid : CRISP_TRY(Number(Field(block, kGid), "gid"));
  entry.uid = CRISP_TRY(Id(uid, "uid"));
  entry.gid = CRISP_TRY(Id(gid, "gid"));
  const std::int64_t size = pax.size ? *pax.size : CRISP_TRY(Number(Field(block, kSize), "size"));
  entry.size = CRISP_TRY(Size(size));
  entry.mtime_seconds =
      pax.mtime_seconds ? *pax.mtime_seconds : CRISP_TRY(Number(Field(block, kMtime), "mtime"));
  entry.mtime_nanoseconds = pax.mtime_seconds ? pax.mtime_nanoseconds : 0;
  entry.xattrs = pax.xattrs;
  return Status::Ok();
}

Status TarReader::FillType(const char* block, TarEntry& entry) {
  const char flag = block[kTypeFlag];
  switch (flag) {
    case '\0':
    case '0':
    case '7':  // "contiguous"
      // Before ustar a directory was a file whose name ends in a slash.
      entry.type = entry.path.ends_with('/') ? EntryType::kDirectory : EntryType::kFile;
      break;
    case 'S': entry.type = EntryType::kFile; break;
    case '1': entry.type = EntryType::kHardLink; break;
    case '2': entry.type = EntryType::kSymlink; break;
    case '3': entry.type = EntryType::kCharDevice; break;
    case '4': entry.type = EntryType::kBlockDevice; break;
    case '5': entry.type = EntryType::kDirectory; break;
    case '6': entry.type = EntryType::kFifo; break;
    default:
      return Unimplemented("tar: {} is of the unknown type 0x{:02x}", entry.path,
                           static_cast<unsigned char>(flag));
  }
  if (entry.type == EntryType::kCharDevice || entry.type == EntryType::kBlockDevice) {
    const std::int64_t major = CRISP_TRY(Number(Field(block, kMajor), "device number"));
    const std::int64_t minor = CRISP_TRY(Number(Field(block, kMinor), "device number"));
    entry.device_major = CRISP_TRY(Id(major, "device number"));
    entry.device_minor = CRISP_TRY(Id(minor, "device number"));
  }
  if ((entry.type == EntryType::kSymlink || entry.type == EntryType::kHardLink) &&
      entry.link.empty())
    return DataLoss("tar: the link {} has no target", entry.path);
  // Only files have contents; some writers put a hard link's or a directory's size there.
  if (entry.type != EntryType::kFile) entry.size = 0;
  return Status::Ok();
}

Status TarReader::Fill(const char* block, const Pax& pax, TarEntry& entry) {
  entry = TarEntry{};
  entry.path = UntilNul(Field(block, kName));
  // GNU's own magic is "ustar " and has other things where ustar has the prefix.
  if (Field(block, kMagic) == std::string_view("ustar\0", 6)) {
    const std::string_view prefix = UntilNul(Field(block, kPrefix));
    if (!prefix.empty()) entry.path = std::string(prefix) + "/" + entry.path;
  }
  if (pax.path) entry.path = *pax.path;
  if (pax.sparse_name) entry.path = *pax.sparse_name;
  entry.link = pax.link ? *pax.link : std::string(UntilNul(Field(block, kLink)));
  if (entry.path.empty()) return DataLoss("tar: an entry has no name");
  if (entry.path.size() > limits_.max_path || entry.link.size() > limits_.max_link)
    return ResourceExhausted("tar: the name {:.64}… is too long", entry.path);
  if (entry.path.find('\0') != std::string::npos || entry.link.find('\0') != std::string::npos)
    return DataLoss("tar: a name has a NUL inside");
  CRISP_TRY(FillAttributes(block, pax, entry));
  return FillType(block, entry);
}

/// GNU's old kind: the extents are in the header and in blocks right after it.
Status TarReader::ReadOldSparse(const char* block, TarEntry& entry) {
  const auto take = [&entry](const char* from, int count) -> Status {
    for (int i = 0; i < count; ++i) {
      const char* pair = from + static_cast<std::size_t>(i) * 2 * kSparseNumber;
      if (*pair == '\0') return Status::Ok();
      const std::int64_t offset = CRISP_TRY(Number({pair, kSparseNumber}, "sparse offset"));
      const std::int64_t size =
          CRISP_TRY(Number({pair + kSparseNumber, kSparseNumber}, "sparse size"));
      const std::uint64_t from_start = CRISP_TRY(Size(offset));
      const std::uint64_t length = CRISP_TRY(Size(size));
      entry.extents.push_back({from_start, length});
    }
    return Status::Ok();
  };
  CRISP_TRY(take(block + kSparseExtents, kSparseInHeader));
  const std::int64_t real = CRISP_TRY(Number(Field(block, kSparseSize), "sparse size"));
  entry.size = CRISP_TRY(Size(real));
  bool more = block[kSparseMore] != '\0';
  std::array<char, kBlock> next;
  for (std::uint64_t read = kBlock; more; read += kBlock) {
    if (read > limits_.max_header.count())
      return ResourceExhausted("tar: {} has too many sparse extents", entry.path);
    if (!CRISP_TRY(ReadBlock(next.data()))) return DataLoss("tar: the archive is cut short");
    CRISP_TRY(take(next.data(), kSparseInBlock));
    more = next[kSparseBlockMore] != '\0';
  }
  return Status::Ok();
}

/// One line of the map before the contents. `read` counts the bytes.
Result<std::uint64_t> TarReader::ReadMapNumber(std::uint64_t& read) {
  std::string digits;
  while (true) {
    const std::string_view taken = left_ == 0 ? std::string_view() : CRISP_TRY(Take(1));
    if (taken.empty()) return DataLoss("tar: a sparse map is cut short");
    --left_;
    ++read;
    if (taken.front() == '\n') break;
    digits += taken.front();
    constexpr std::size_t kMaxDigits = 20;
    if (digits.size() > kMaxDigits) return DataLoss("tar: the sparse map is malformed");
  }
  return DecimalSize(digits, "sparse map");
}

/// PAX 1.0: the map is at the beginning of the contents, up to a full block.
Status TarReader::ReadSparseMap(TarEntry& entry) {
  std::uint64_t read = 0;
  const std::uint64_t count = CRISP_TRY(ReadMapNumber(read));
  for (std::uint64_t i = 0; i < count; ++i) {
    if (read > limits_.max_header.count())
      return ResourceExhausted("tar: {} has too many sparse extents", entry.path);
    const std::uint64_t offset = CRISP_TRY(ReadMapNumber(read));
    const std::uint64_t size = CRISP_TRY(ReadMapNumber(read));
    entry.extents.push_back({offset, size});
  }
  const std::uint64_t rest = PaddingOf(read);
  if (rest > left_) return DataLoss("tar: a sparse map is cut short");
  left_ -= rest;
  return Skip(rest);
}

/// After Fill, with left_ set to what is stored.
Status TarReader::ReadSparse(const char* block, const Pax& pax, TarEntry& entry) {
  const bool old = block[kTypeFlag] == 'S';
  if (entry.type != EntryType::kFile || (!pax.sparse && !old)) return Status::Ok();
  entry.sparse = true;
  if (old) {
    CRISP_TRY(ReadOldSparse(block, entry));
  } else {
    if (!pax.sparse_size) return DataLoss("tar: the sparse file {} has no size", entry.path);
    entry.size = CRISP_TRY(Size(*pax.sparse_size));
    entry.extents = pax.extents;
    if (pax.sparse_map_in_data) {
      entry.extents.clear();
      CRISP_TRY(ReadSparseMap(entry));
    }
  }
  std::uint64_t end = 0;
  std::uint64_t stored = 0;
  for (const Extent& extent : entry.extents) {
    if (extent.offset < end || extent.offset + extent.size > entry.size)
      return DataLoss("tar: the sparse map of {} makes no sense", entry.path);
    end = extent.offset + extent.size;
    stored += extent.size;
  }
  if (stored != left_)
    return DataLoss("tar: the sparse file {} has {} bytes, its map says {}", entry.path, left_,
                    stored);
  std::erase_if(entry.extents, [](const Extent& extent) { return extent.size == 0; });
  return Status::Ok();
}

Result<bool> TarReader::Next(TarEntry& entry) {
  if (ended_) return false;
  CRISP_TRY(SkipEntry());
  Pax pax;
  std::uint64_t extended_size = 0;
  std::array<char, kBlock> block;
  while (true) {
    if (!CRISP_TRY(ReadBlock(block.data()))) {
      // Two zero blocks should come first, but many writers leave them out.
      ended_ = true;
      return false;
    }
    if (IsZero(block.data())) {
      ended_ = true;
      return false;
    }
    CRISP_TRY(CheckSum(block.data()));
    if (++entries_ > limits_.max_entries)
      return ResourceExhausted("tar: more than {} entries", limits_.max_entries);
    const char flag = block[kTypeFlag];
    const bool extended = flag == 'x' || flag == 'g' || flag == 'L' || flag == 'K';
    if (!extended) {
      CRISP_TRY(Fill(block.data(), pax, entry));
      left_ = entry.size;
      padding_ = PaddingOf(entry.size);
      CRISP_TRY(ReadSparse(block.data(), pax, entry));
      return true;
    }
    const std::int64_t stored_size = CRISP_TRY(Number(Field(block.data(), kSize), "size"));
    const std::uint64_t size = CRISP_TRY(Size(stored_size));
    extended_size += size;
    if (extended_size > limits_.max_header.count())
      return ResourceExhausted("tar: an extended header of {} bytes is too large", extended_size);
    if (flag == 'x') {
      CRISP_TRY(ReadPax(size, pax));
    } else if (flag == 'L') {
      const std::string text = CRISP_TRY(ReadText(size));
      pax.path = std::string(UntilNul(text));
    } else if (flag == 'K') {
      const std::string text = CRISP_TRY(ReadText(size));
      pax.link = std::string(UntilNul(text));
    } else {
      // Global headers carry comments (git archive); what else they could say nobody writes.
      CRISP_TRY(ReadText(size));
    }
  }
}

Result<std::string_view> TarReader::Data() {
  if (left_ == 0) return std::string_view();
  const std::string_view taken = CRISP_TRY(Take(left_));
  if (taken.empty()) return DataLoss("tar: the archive is cut short");
  left_ -= taken.size();
  return taken;
}

Status TarReader::Drain() {
  while (!CRISP_TRY(Take(std::numeric_limits<std::uint64_t>::max())).empty()) {
  }
  return Status::Ok();
}

}  // namespace crisp::archive
