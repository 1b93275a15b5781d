#include "services/imaged/core/chunked.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/json/json.h"

namespace crisp::imaged {
namespace {

constexpr const char* kTocPlace = "io.github.containers.zstd-chunked.manifest-position";
constexpr const char* kTocDigest = "io.github.containers.zstd-chunked.manifest-checksum";
constexpr const char* kTarSplitPlace = "io.github.containers.zstd-chunked.tarsplit-position";
constexpr std::uint64_t kTocKind = 1;
// Held in memory as they lie in the blob, for as long as the layer is pulled.
constexpr std::uint64_t kMaxToc = std::uint64_t{16} << 20U;
constexpr std::uint64_t kMaxTarSplit = std::uint64_t{16} << 20U;
constexpr std::size_t kMaxTocText = std::size_t{256} << 20U;         // read as it is inflated
constexpr std::uint64_t kMaxTarSplitText = std::uint64_t{1} << 30U;  // likewise
constexpr std::size_t kMaxLine = std::size_t{4} << 20U;  // of the tar-split: a PAX header
constexpr std::size_t kPiece = std::size_t{64} << 10U;

/// "1:22:333" as so many numbers; nothing for anything else.
template <std::size_t Count>
std::optional<std::array<std::uint64_t, Count>> Numbers(const nlohmann::json& annotations,
                                                        const char* key) {
  const auto found = annotations.find(key);
  if (found == annotations.end() || !found->is_string()) return std::nullopt;
  const std::string& text = found->get_ref<const std::string&>();
  std::array<std::uint64_t, Count> numbers{};
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  for (std::size_t i = 0; i < Count; ++i) {
    if (i > 0 && (at == end || *at++ != ':')) return std::nullopt;
    const auto [stop, error] = std::from_chars(at, end, numbers[i]);
    if (error != std::errc()) return std::nullopt;
    at = stop;
  }
  if (at != end) return std::nullopt;
  return numbers;
}

bool IsWithin(const BlobRange& range, std::uint64_t size) {
  return range.size > 0 && range.from < size && range.size <= size - range.from;
}

Result<std::uint64_t> GetCount(const nlohmann::json& object, const char* key) {
  const std::int64_t value = CRISP_TRY(json::OptInt(object, key));
  if (value < 0) return InvalidArgument("{}: {} is no size", key, value);
  return static_cast<std::uint64_t>(value);
}

}  // namespace

std::optional<ChunkedPlaces> ParseChunkedPlaces(const nlohmann::json& annotations,
                                                std::uint64_t blob_size) {
  const auto toc = Numbers<4>(annotations, kTocPlace);  // place, size, size inflated, kind
  const auto checksum = annotations.find(kTocDigest);
  if (!toc || (*toc)[3] != kTocKind || checksum == annotations.end() || !checksum->is_string())
    return std::nullopt;
  Result<digest::Digest> digest = digest::Digest::Parse(checksum->get_ref<const std::string&>());
  ChunkedPlaces places{.toc = {.from = (*toc)[0], .size = (*toc)[1]}};
  if (!digest.ok() || !IsWithin(places.toc, blob_size) || places.toc.size > kMaxToc)
    return std::nullopt;
  places.toc_digest = *std::move(digest);
  if (const auto split = Numbers<3>(annotations, kTarSplitPlace)) {
    const BlobRange range{.from = (*split)[0], .size = (*split)[1]};
    if (IsWithin(range, blob_size) && range.size <= kMaxTarSplit) places.tar_split = range;
  }
  return places;
}

Result<digest::Digest> ReadToc(std::string_view toc,
                               const std::function<Status(const TocFile&)>& file) {
  archive::StringSource source(toc, kPiece);
  const auto plain = archive::MakeDecompressor(archive::Compression::kZstd, source);
  archive::PlainSource pieces(*plain);
  std::size_t files = 0;
  const auto entry = [&](const nlohmann::json& item) -> Status {
    // Parts of a large file come as entries of their own after it: it is read in one piece.
    if (CRISP_TRY(json::GetString(item, "type")) != "reg") return Status::Ok();
    TocFile found;
    found.size = CRISP_TRY(GetCount(item, "size"));
    if (found.size == 0) return Status::Ok();
    if (++files > kMaxTocFiles)
      return ResourceExhausted("the table of a layer has more than {} files", kMaxTocFiles);
    found.name = CRISP_TRY(json::GetString(item, "name"));
    const std::string digest = CRISP_TRY(json::GetString(item, "digest"));
    found.digest = CRISP_TRY(digest::Digest::Parse(digest));
    found.offset = CRISP_TRY(GetCount(item, "offset"));
    found.end = CRISP_TRY(GetCount(item, "endOffset"));
    return file(found);
  };
  const nlohmann::json rest = CRISP_TRY(json::ParseItems(
      [&pieces] { return pieces.Next(); }, "entries", entry, {.max_bytes = kMaxTocText}));
  const std::int64_t version = CRISP_TRY(json::GetInt(rest, "version"));
  if (version != 1) return InvalidArgument("the table of a layer has the version {}", version);
  const std::string tar_split = CRISP_TRY(json::OptString(rest, "tarSplitDigest"));
  if (tar_split.empty()) return digest::Digest();
  return digest::Digest::Parse(tar_split);
}

TarSplitReader::TarSplitReader(std::string_view tar_split)
    : source_(tar_split, kPiece),
      plain_(archive::MakeDecompressor(archive::Compression::kZstd, source_)),
      buffer_(kPiece, '\0') {}

Result<bool> TarSplitReader::NextLine(std::string& line) {
  line.clear();
  while (true) {
    const std::string_view rest = std::string_view(buffer_).substr(at_, filled_ - at_);
    const std::size_t end = rest.find('\n');
    line += rest.substr(0, end);
    if (line.size() > kMaxLine)
      return InvalidArgument("the tar-split has a line of more than {} bytes", kMaxLine);
    if (end != rest.npos) {
      at_ += end + 1;
      return true;
    }
    at_ = 0;
    filled_ = CRISP_TRY(plain_->Read(buffer_));
    if (filled_ == 0) return !line.empty();
    read_ += filled_;
    if (read_ > kMaxTarSplitText)
      return InvalidArgument("the tar-split inflates to more than {} bytes", kMaxTarSplitText);
  }
}

Result<bool> TarSplitReader::Next(Item& item) {
  constexpr std::int64_t kFile = 1;
  constexpr std::int64_t kSegment = 2;
  item = {};
  std::string line;
  while (CRISP_TRY(NextLine(line))) {
    const nlohmann::json json =
        CRISP_TRY(json::Parse(line, {.max_bytes = kMaxLine, .max_depth = 8}));
    const std::int64_t type = CRISP_TRY(json::GetInt(json, "type"));
    if (type == kSegment) {
      const std::string payload = CRISP_TRY(json::OptString(json, "payload"));
      item.bytes = CRISP_TRY(FromBase64(payload));
      if (!item.bytes.empty()) return true;
    } else if (type == kFile) {
      item.file_size = CRISP_TRY(GetCount(json, "size"));
      if (item.file_size > 0) return true;
    } else {
      return InvalidArgument("the tar-split has an entry of the unknown type {}", type);
    }
  }
  return false;
}

}  // namespace crisp::imaged
