#include <algorithm>
#include <array>
#include <limits>

#include "libs/archive/tar_internal.h"

// What PAX headers say, and the maps of sparse files.
namespace crisp::archive {

using namespace internal;

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
    if (*mtime_seconds == std::numeric_limits<std::int64_t>::min())
      return DataLoss("tar: the PAX mtime is out of range");
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

}  // namespace crisp::archive
