#include "services/imaged/core/gather.h"

#include <algorithm>
#include <memory>

#include "libs/base/try.h"

namespace crisp::imaged {
namespace {

struct Parts {
  std::vector<BlobRange> parts;
  std::uint64_t blob_size;
  const OpenBlob& open;
  std::uint64_t total = 0;  // of the parts
};

class GatherReader final : public BlobReader {
 public:
  /// `left`: how many bytes from there on are wanted.
  GatherReader(std::shared_ptr<const Parts> all, std::uint64_t from, std::uint64_t left)
      : all_(std::move(all)), skip_(from), left_(left) {
    while (part_ < all_->parts.size() && skip_ >= all_->parts[part_].size)
      skip_ -= all_->parts[part_++].size;
  }

  /// Opens the part that is next, once: what the source says of it is told from then on.
  Status Open(const CallContext& cc) {
    if (part_ == all_->parts.size()) return DataLoss("the parts of a blob end before that");
    const BlobRange& part = all_->parts[part_];
    reader_left_ = std::min(part.size - skip_, left_);
    reader_ = CRISP_TRY(all_->open(cc, BlobRange{.from = part.from + skip_, .size = reader_left_}));
    if (!reader_->is_range()) return DataLoss("a part of a blob was asked for, and all came");
    if (reader_->total().value_or(all_->blob_size) != all_->blob_size)
      return DataLoss("the blob has {} bytes, its manifest says {}", *reader_->total(),
                      all_->blob_size);
    if (part_ == 0 || version_.empty()) version_ = reader_->version();
    from_ = reader_->from();
    return Status::Ok();
  }

  Result<std::size_t> Read(const CallContext& cc, std::span<char> into) override {
    if (left_ == 0) return std::size_t{0};
    if (!reader_) {
      Status opened = Open(cc);
      // Nobody answers for the moment: as with a connection that breaks, it may be opened again.
      if (opened.code() == Code::kUnknown) opened = Unavailable("{}", opened.message());
      CRISP_TRY(std::move(opened));
    }
    const std::size_t room = std::min<std::uint64_t>(into.size(), reader_left_);
    const std::size_t count = CRISP_TRY(reader_->Read(cc, into.first(room)));
    if (count == 0) return Unavailable("a part of a blob ends early");
    left_ -= count;
    reader_left_ -= count;
    if (reader_left_ == 0) {
      reader_.reset();
      skip_ = 0;
      ++part_;
    }
    return count;
  }
  std::optional<std::uint64_t> total() const override { return all_->total; }
  bool is_range() const override { return true; }
  std::string version() const override { return version_; }
  std::string from() const override { return from_; }

 private:
  const std::shared_ptr<const Parts> all_;
  std::size_t part_ = 0;
  std::uint64_t skip_;  // of that part
  std::uint64_t left_;
  std::unique_ptr<BlobReader> reader_;
  std::uint64_t reader_left_ = 0;
  std::string version_;
  std::string from_;
};

}  // namespace

OpenBlob Gather(std::vector<BlobRange> parts, std::uint64_t blob_size, const OpenBlob& open) {
  const auto all = std::make_shared<Parts>(
      Parts{.parts = std::move(parts), .blob_size = blob_size, .open = open});
  for (const BlobRange& part : all->parts) all->total += part.size;
  return [all](const CallContext& cc, BlobRange range) -> Result<std::unique_ptr<BlobReader>> {
    const std::uint64_t rest = all->total - std::min(all->total, range.from);
    auto reader = std::make_unique<GatherReader>(
        all, range.from, range.size == 0 ? rest : std::min(rest, range.size));
    CRISP_TRY(reader->Open(cc));
    return std::unique_ptr<BlobReader>(std::move(reader));
  };
}

}  // namespace crisp::imaged
