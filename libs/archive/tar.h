#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "libs/archive/source.h"
#include "libs/base/result.h"
#include "libs/base/units.h"

namespace crisp::archive {

enum class EntryType { kFile, kDirectory, kSymlink, kHardLink, kCharDevice, kBlockDevice, kFifo };

/// A piece of a sparse file that holds data; between the pieces it reads as zeros.
struct Extent {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

/// One member of a tar archive, exactly as the archive has it: the path is not cleaned, the names
/// of the extended attributes are not judged.
struct TarEntry {
  EntryType type = EntryType::kFile;
  std::string path;
  std::string link;        // target of a symbolic or hard link
  std::uint32_t mode = 0;  // permission bits with setuid, setgid and sticky
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t size = 0;       // as the unpacked file shows it
  bool sparse = false;          // Data() gives the extents' bytes only, one after the other
  std::vector<Extent> extents;  // ascending, not overlapping, inside `size`
  std::int64_t mtime_seconds = 0;
  std::uint32_t mtime_nanoseconds = 0;
  std::uint32_t device_major = 0;
  std::uint32_t device_minor = 0;
  std::map<std::string, std::string> xattrs;  // from PAX SCHILY.xattr.*
};

/// True for the extended attributes that an archive from outside may bring: others would speak to
/// overlayfs in our name, or are the host's to give.
bool IsHarmlessXattr(std::string_view name);

/// overlayfs's mark (mounted with `userxattr`), "y" on a directory: nothing below it shows.
inline constexpr const char* kOpaqueXattr = "user.overlay.opaque";

struct TarLimits {
  std::uint64_t max_entries = 4'000'000;
  Bytes max_header = MiB(1);  // one PAX header or long name
  std::size_t max_path = 4096;
  std::size_t max_link = 4096;
};

/// Reads ustar, PAX and GNU archives from a hostile source, sparse files of all four kinds (GNU's
/// old one, PAX 0.0, 0.1 and 1.0) among them. Memory: one header block and the extended headers of
/// one entry; file contents pass through as views of the source's own pieces.
class TarReader {
 public:
  /// `source` must outlive the reader.
  explicit TarReader(ChunkSource& source, TarLimits limits = {})
      : source_(source), limits_(limits) {}

  /// The next entry; false at the end of the archive. What is left of the entry before is skipped.
  /// kDataLoss: damaged or cut short; kUnimplemented: kinds that nobody unpacks (parts of several
  /// volumes); kResourceExhausted: a limit is passed.
  Result<bool> Next(TarEntry& entry);
  /// The next piece of the current entry's contents, valid until the next call; empty at its end.
  Result<std::string_view> Data();
  /// Takes everything that is left, so that whoever computes a digest upstream sees all bytes.
  Status Drain();

 private:
  struct Pax;

  Result<std::string_view> Take(std::uint64_t at_most);
  Result<bool> ReadBlock(char* block);
  Status Skip(std::uint64_t count);
  Status SkipEntry();
  Result<std::string> ReadText(std::uint64_t size);
  Status ReadPax(std::uint64_t size, Pax& pax);
  Status Fill(const char* block, const Pax& pax, TarEntry& entry);
  Status FillAttributes(const char* block, const Pax& pax, TarEntry& entry);
  Status FillType(const char* block, TarEntry& entry);
  Status ReadSparse(const char* block, const Pax& pax, TarEntry& entry);
  Status ReadOldSparse(const char* block, TarEntry& entry);
  Status ReadSparseMap(TarEntry& entry);
  Result<std::uint64_t> ReadMapNumber(std::uint64_t& read);

  ChunkSource& source_;
  TarLimits limits_;
  std::string_view piece_;
  std::uint64_t left_ = 0;     // of the current entry's contents
  std::uint64_t padding_ = 0;  // after it, up to the next block
  std::uint64_t entries_ = 0;
  bool source_ended_ = false;
  bool ended_ = false;
};

/// The contents of the tar's current entry.
class EntrySource final : public ChunkSource {
 public:
  explicit EntrySource(TarReader& tar) : tar_(tar) {}
  Result<std::string_view> Next() override { return tar_.Data(); }

 private:
  TarReader& tar_;
};

}  // namespace crisp::archive
