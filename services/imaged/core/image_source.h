#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/digest/digest.h"

namespace crisp::imaged {

/// A manifest as its source has it, with the digest of exactly these bytes (of the signed part of
/// them for Docker's signed format).
struct FetchedManifest {
  std::string body;
  std::string media_type;
  digest::Digest digest;
};

/// The bytes of a blob from `from` on: `size` of them, or with 0 all.
struct BlobRange {
  std::uint64_t from = 0;
  std::uint64_t size = 0;
};

/// A blob's bytes as they come. Belongs to one thread at a time.
class BlobReader {
 public:
  virtual ~BlobReader() = default;
  /// The next bytes, as many as have come; 0 at the end. kUnavailable: it broke off, and may go on
  /// when it is opened again.
  virtual Result<std::size_t> Read(const CallContext& cc, std::span<char> into) = 0;
  /// The size of the whole blob, where the source says it.
  virtual std::optional<std::uint64_t> total() const = 0;
  /// False: a range with a size was asked for, and the source has all bytes from the first on
  /// instead.
  virtual bool is_range() const { return false; }
  /// Another text stands for other bytes (ETag); "" where the source does not say.
  virtual std::string version() const { return {}; }
  /// Whom they come from ("quay.io:443"); "" where that is nobody else.
  virtual std::string from() const { return {}; }
};

/// Where an image's parts come from: a registry, or an archive. Any thread.
class ImageSource {
 public:
  virtual ~ImageSource() = default;
  /// By tag or digest. With a digest the body is verified (kDataLoss).
  virtual Result<FetchedManifest> Manifest(const CallContext& cc, const std::string& tag_or_digest,
                                           Bytes limit) = 0;
  /// A small blob, verified (kDataLoss).
  virtual Result<std::string> Blob(const CallContext& cc, const digest::Digest& digest,
                                   Bytes limit) = 0;
  /// A blob's bytes. A range without a size is always kept to; one with a size only where the
  /// reader says so. kUnknown, kUnavailable: nobody answers for the moment.
  virtual Result<std::unique_ptr<BlobReader>> OpenBlob(const CallContext& cc,
                                                       const digest::Digest& digest,
                                                       BlobRange range) = 0;
};

}  // namespace crisp::imaged
