#include "libs/archive/tar.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>

#include "libs/archive/tar_internal.h"
#include "libs/base/try.h"

namespace crisp::archive {

using namespace internal;

namespace {

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

}  // namespace

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
  CRISP_TRY(Skip(left_));
  left_ = 0;
  // Some tools (umoci insert) leave out what follows on the last file, and the peers do not mind:
  // a truncated stream fails at its digest.
  while (padding_ > 0) {
    const std::string_view taken = CRISP_TRY(Take(padding_));
    if (taken.empty()) break;
    padding_ -= taken.size();
  }
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

bool IsHarmlessXattr(std::string_view name) {
  if (name == "security.capability") return true;
  return name.starts_with("user.") && !name.starts_with("user.overlay.");
}

}  // namespace crisp::archive
