#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "libs/archive/decompress.h"
#include "libs/archive/source.h"
#include "libs/base/result.h"
#include "libs/digest/digest.h"
#include "services/imaged/core/image_source.h"
#include "services/imaged/core/manifest.h"

// What a zstd:chunked layer has beside the frames of its tar: a table of its files and where each
// lies in the blob, and the "tar-split", all bytes of the tar that are no file's contents. Neither
// is trusted: they say where bytes may be found, the layer's diff id says whether they are right.
namespace crisp::imaged {

/// From a layer's annotations. Nothing where there are none, or none that can be used: another
/// kind of table, places outside the blob, sizes beyond all reason. Then it is a layer like others.
std::optional<ChunkedPlaces> ParseChunkedPlaces(const nlohmann::json& annotations,
                                                std::uint64_t blob_size);

/// A file with contents, as the table has it: whole zstd frames from `offset` up to `end`.
struct TocFile {
  std::string name;
  digest::Digest digest;  // of the contents
  std::uint64_t size = 0;
  std::uint64_t offset = 0;
  std::uint64_t end = 0;
};

/// Reads the table as it lies in the blob (compressed), file by file, in the order of the tar.
/// Answers the digest of the (compressed) tar-split, empty where it says none. kInvalidArgument,
/// kDataLoss: it is malformed, or has files whose digests are no SHA-256; kResourceExhausted: more
/// than kMaxTocFiles. An error of `file` ends it and passes through.
Result<digest::Digest> ReadToc(std::string_view toc,
                               const std::function<Status(const TocFile&)>& file);

inline constexpr std::size_t kMaxTocFiles = 200'000;

/// The tar-split as it lies in the blob (compressed), which must outlive it. One thread.
class TarSplitReader {
 public:
  explicit TarSplitReader(std::string_view tar_split);

  struct Item {
    std::string bytes;            // of the tar; with a file: ""
    std::uint64_t file_size = 0;  // the contents of the next file with any, so many bytes
  };
  /// False at the end. kInvalidArgument, kDataLoss: malformed.
  Result<bool> Next(Item& item);

 private:
  Result<bool> NextLine(std::string& line);

  archive::StringSource source_;
  std::unique_ptr<archive::Decompressor> plain_;
  std::string buffer_;
  std::size_t at_ = 0;
  std::size_t filled_ = 0;
  std::uint64_t read_ = 0;
};

}  // namespace crisp::imaged
