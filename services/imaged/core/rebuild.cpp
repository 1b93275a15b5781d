#include "services/imaged/core/rebuild.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"

namespace crisp::imaged {
namespace {

constexpr std::size_t kBlock = 512;  // of a tar

}  // namespace

Result<std::string_view> TarRebuild::Take(std::uint64_t at_most) {
  if (piece_.empty()) piece_ = CRISP_TRY(fetched_.Next());
  const std::string_view bytes = piece_.substr(0, at_most);
  piece_.remove_prefix(bytes.size());
  taken_ += bytes.size();
  return bytes;
}

Status TarRebuild::SkipTo(std::uint64_t position) {
  if (position < taken_) return DataLoss("the frames of two files overlap");
  while (taken_ < position)
    if (CRISP_TRY(Take(position - taken_)).empty()) return DataLoss("the blob ends early");
  return Status::Ok();
}

Result<std::string_view> TarRebuild::Frames::Next() {
  if (left_ == 0) return std::string_view();
  const std::string_view bytes = CRISP_TRY(rebuild_.Take(left_));
  left_ -= bytes.size();
  return bytes;
}

/// The tar-split comes first, and is needed to the end.
Status TarRebuild::Begin() {
  const std::uint64_t size = plan_.parts.front().size;
  while (tar_split_.size() < size) {
    const std::string_view bytes = CRISP_TRY(Take(size - tar_split_.size()));
    if (bytes.empty()) return DataLoss("the tar-split ends early");
    tar_split_ += bytes;
  }
  if (!plan_.tar_split.empty() && digest::Sha256Digest(tar_split_) != plan_.tar_split)
    return DataLoss("the tar-split is not the one that the layer's table promises");
  items_.emplace(tar_split_);
  begun_ = true;
  return Status::Ok();
}

/// False at the end of the tar.
Result<bool> TarRebuild::NextItem() {
  TarSplitReader::Item item;
  if (!CRISP_TRY(items_->Next(item))) {
    if (next_ < plan_.files.size()) return DataLoss("the tar-split lacks files of the table");
    return false;
  }
  // A tar begins with a header. Of one that began with contents, somebody who knows their digest
  // alone, not themselves, could know the diff id.
  if (!head_seen_ && item.bytes.size() < kBlock)
    return DataLoss("the tar-split begins without a header");
  head_seen_ = true;
  bytes_ = std::move(item.bytes);
  bytes_at_ = 0;
  if (item.file_size > 0) CRISP_TRY(OpenFile(item.file_size));
  return true;
}

Status TarRebuild::OpenFile(std::uint64_t size) {
  if (next_ == plan_.files.size()) return DataLoss("the tar-split has a file that no table has");
  const ReusePlan::File& file = plan_.files[next_];
  if (file.size != size) return DataLoss("the tar-split and the table disagree about a size");
  left_ = size;
  if (!file.local) {
    CRISP_TRY(SkipTo(file.fetched_at));
    inflated_ = std::make_unique<Inflated>(*this, file.end - file.offset);
    return Status::Ok();
  }
  const ReusePlan::Local& local = plan_.locals[*file.local];
  local_ = CRISP_TRY(
      plan_.layers[local.layer].root.OpenFile(local.path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  return Status::Ok();
}

Status TarRebuild::FileEnds() {
  const ReusePlan::File& file = plan_.files[next_++];
  if (!file.local) {
    std::array<char, 1> more{};
    if (CRISP_TRY(inflated_->plain->Read(more)) != 0)
      return DataLoss("the frames of a file hold more than it");
    inflated_.reset();
    return Status::Ok();
  }
  local_.reset();
  if (sum_.Finish().Bytes() != file.digest) {
    const ReusePlan::Local& local = plan_.locals[*file.local];
    const ReusePlan::Layer& layer = plan_.layers[local.layer];
    // It would cost the next pull as much as this one.
    log::IfError("delete the index of a layer", os::RemoveFile(layer.index));
    return DataLoss("{} in {} is not what the index of that layer says", local.path,
                    layer.root.name());
  }
  if (!used_[*file.local]) reused_ += file.size;
  used_[*file.local] = true;
  return Status::Ok();
}

Result<std::size_t> TarRebuild::ReadFile(std::span<char> into) {
  const std::span<char> room = into.first(std::min<std::uint64_t>(into.size(), left_));
  std::size_t count = 0;
  if (inflated_) {
    count = CRISP_TRY(inflated_->plain->Read(room));
  } else {
    const ssize_t got = ::read(local_.get(), room.data(), room.size());
    if (got < 0) return Status::Errno(errno, "read a file of another layer");
    count = static_cast<std::size_t>(got);
    sum_.Update({room.data(), count});
  }
  if (count == 0) return DataLoss("a file of the layer is shorter than its table says");
  left_ -= count;
  if (left_ == 0) CRISP_TRY(FileEnds());
  return count;
}

Result<std::size_t> TarRebuild::Read(std::span<char> into) {
  if (!begun_) CRISP_TRY(Begin());
  std::size_t done = 0;
  while (done < into.size()) {
    const std::span<char> room = into.subspan(done);
    if (bytes_at_ < bytes_.size()) {
      const std::size_t count = bytes_.copy(room.data(), room.size(), bytes_at_);
      bytes_at_ += count;
      done += count;
    } else if (left_ > 0) {
      done += CRISP_TRY(ReadFile(room));
    } else if (!CRISP_TRY(NextItem())) {
      break;
    }
  }
  return done;
}

}  // namespace crisp::imaged
