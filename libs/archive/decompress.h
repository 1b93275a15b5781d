#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "libs/archive/source.h"
#include "libs/base/result.h"

namespace crisp::archive {

enum class Compression { kNone, kGzip, kZstd };

/// "none", "gzip", "zstd".
std::string_view CompressionName(Compression compression);

/// What the first bytes of a stream (four or more, or all there are) say it is.
/// kUnimplemented for the formats that we know but do not read (bzip2, xz).
Result<Compression> DetectCompression(std::string_view head);

/// Turns compressed pieces into plain bytes. Used by one thread at a time.
class Decompressor {
 public:
  virtual ~Decompressor() = default;
  /// Fills `into` as far as it goes; less than its size only at the end, 0 when nothing is left.
  /// kDataLoss: the stream is damaged, cut short or followed by rubbish; the source's own errors
  /// pass through.
  virtual Result<std::size_t> Read(std::span<char> into) = 0;
};

/// `source` must outlive the decompressor. kNone copies.
std::unique_ptr<Decompressor> MakeDecompressor(Compression compression, ChunkSource& source);

/// The plain bytes as pieces; the decompressor must outlive it.
class PlainSource final : public ChunkSource {
 public:
  explicit PlainSource(Decompressor& decompressor) : decompressor_(decompressor) {}
  Result<std::string_view> Next() override;

 private:
  Decompressor& decompressor_;
  std::string piece_;
};

}  // namespace crisp::archive
