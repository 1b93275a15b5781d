#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libs/archive/decompress.h"
#include "libs/archive/source.h"
#include "libs/digest/digest.h"
#include "libs/os/unique_fd.h"
#include "services/imaged/core/chunked.h"
#include "services/imaged/core/reuse.h"

namespace crisp::imaged {

/// The tar of a layer, made of its tar-split, files of the store and what is fetched of its blob. A
/// file of the store is read to its end with its digest taken. Whether it is the right tar, its
/// diff id says. kDataLoss: it is not, for sure.
class TarRebuild final : public archive::Decompressor {
 public:
  /// `fetched` gives the plan's parts, one after the other. Both must outlive it.
  TarRebuild(const ReusePlan& plan, archive::ChunkSource& fetched)
      : plan_(plan), fetched_(fetched), used_(plan.locals.size()) {}

  Result<std::size_t> Read(std::span<char> into) override;
  /// How much of what was read is files of the store, each counted once.
  std::uint64_t reused() const { return reused_; }

 private:
  /// The frames of one file among what is fetched.
  class Frames final : public archive::ChunkSource {
   public:
    Frames(TarRebuild& rebuild, std::uint64_t size) : rebuild_(rebuild), left_(size) {}
    Result<std::string_view> Next() override;

   private:
    TarRebuild& rebuild_;
    std::uint64_t left_;
  };
  struct Inflated {
    Inflated(TarRebuild& rebuild, std::uint64_t size)
        : frames(rebuild, size),
          plain(archive::MakeDecompressor(archive::Compression::kZstd, frames)) {}
    Frames frames;
    std::unique_ptr<archive::Decompressor> plain;
  };

  Result<std::string_view> Take(std::uint64_t at_most);
  Status SkipTo(std::uint64_t position);
  Status Begin();
  Result<bool> NextItem();
  Status OpenFile(std::uint64_t size);
  Result<std::size_t> ReadFile(std::span<char> into);
  Status FileEnds();

  const ReusePlan& plan_;
  archive::ChunkSource& fetched_;
  std::string_view piece_;  // of what is fetched, not used up
  std::uint64_t taken_ = 0;
  std::string tar_split_;
  std::optional<TarSplitReader> items_;
  bool begun_ = false;
  bool head_seen_ = false;
  std::string bytes_;  // of the tar-split
  std::size_t bytes_at_ = 0;
  std::size_t next_ = 0;    // in plan_.files
  std::uint64_t left_ = 0;  // of the current file
  os::UniqueFd local_;
  digest::Sha256 sum_;
  std::unique_ptr<Inflated> inflated_;
  std::vector<bool> used_;  // locals
  std::uint64_t reused_ = 0;
};

}  // namespace crisp::imaged
