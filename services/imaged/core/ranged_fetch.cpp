#include "services/imaged/core/ranged_fetch.h"

#include <algorithm>

#include "libs/base/try.h"
#include "libs/log/log.h"

namespace crisp::imaged {
namespace {

// What a connection must bring before it breaks so that its part is asked for again.
constexpr std::uint64_t kProgress = std::uint64_t{64} << 10U;

}  // namespace

RangedFetch::RangedFetch(const CallContext& cc, std::uint64_t size,
                         std::unique_ptr<BlobReader> first, const OpenBlob& open,
                         std::size_t connections, Slots& slots, BufferPool& pool)
    : cc_(cc.WithStop(stop_.get_token())),
      outer_stop_(cc.stop(), [this] { stop_.request_stop(); }),
      size_(size),
      part_count_((size + kPartSize - 1) / kPartSize),
      open_(open),
      ahead_(connections),
      slots_(slots),
      pool_(pool),
      version_(first->version()),
      first_(std::move(first)) {
  const std::size_t count = std::min<std::uint64_t>(connections, part_count_);
  for (std::size_t i = 0; i < count; ++i)
    threads_.emplace_back([this, counted = i == 0] { Work(counted); });
}

RangedFetch::~RangedFetch() {
  stop_.request_stop();
  for (std::thread& thread : threads_) thread.join();
}

void RangedFetch::Work(bool counted) {
  while (true) {
    Slots::Hold slot;
    const std::optional<std::uint64_t> number = Claim(counted ? nullptr : &slot);
    if (!number) return;
    const Status status = FetchPart(*number);
    const std::lock_guard lock(mutex_);
    if (status.ok()) {
      parts_[*number - front_].done = true;
    } else if (stop_.request_stop()) {
      log::Debug("one connection for the rest of a layer",
                 {{"request", cc_.request_id()}, {"why", status}});
    }
    changed_.notify_all();
  }
}

bool RangedFetch::MayClaim() const {
  const std::uint64_t next = front_ + parts_.size();
  return next < part_count_ && parts_.size() < ahead_;
}

std::optional<std::uint64_t> RangedFetch::Claim(Slots::Hold* slot) {
  std::unique_lock lock(mutex_);
  const auto all_claimed = [this] { return front_ + parts_.size() >= part_count_; };
  while (true) {
    changed_.wait(lock, cc_.stop(), [&] { return MayClaim() || all_claimed(); });
    if (cc_.stop().stop_requested() || all_claimed()) return std::nullopt;
    if (slot == nullptr) break;
    // Not under the lock: the others go on meanwhile, and may leave nothing to claim.
    lock.unlock();
    Result<Slots::Hold> taken = slots_.Take(cc_, "wait for a connection among the downloads");
    lock.lock();
    if (!taken.ok()) return std::nullopt;
    if (!MayClaim()) continue;
    *slot = *std::move(taken);
    break;
  }
  parts_.emplace_back();
  return front_ + parts_.size() - 1;
}

Result<std::unique_ptr<BlobReader>> RangedFetch::Open(BlobRange range) {
  std::unique_ptr<BlobReader> reader = CRISP_TRY(open_(cc_, range));
  if (!reader->is_range()) return Unavailable("a range was asked for, and all came");
  if (reader->version() != version_ || reader->total() != size_)
    return Unavailable("another blob came than for the first part");
  return reader;
}

Status RangedFetch::FetchPart(std::uint64_t number) {
  std::uint64_t at = number * kPartSize;
  const std::uint64_t end = std::min(size_, at + kPartSize);
  std::uint64_t opened_at = at;
  std::unique_ptr<BlobReader> reader;
  if (number == 0) {
    const std::lock_guard lock(mutex_);
    reader = std::move(first_);
  }
  Buffer filling;
  while (at < end) {
    if (!reader) {
      reader = CRISP_TRY(Open({.from = at, .size = end - at}));
      opened_at = at;
    }
    if (!filling.bytes) filling = pool_.Take();
    const std::uint64_t room = std::min<std::uint64_t>(kBufferSize - filling.size, end - at);
    Result<std::size_t> count =
        reader->Read(cc_, {filling.bytes.get() + filling.size, static_cast<std::size_t>(room)});
    if (count.ok() && *count == 0) count = Unavailable("the range ends early");
    if (!count.ok()) {
      if (count.code() != Code::kUnavailable || at - opened_at < kProgress) return count.status();
      reader.reset();
      continue;
    }
    filling.size += *count;
    at += *count;
    if (filling.size < kBufferSize && at < end) continue;
    const std::lock_guard lock(mutex_);
    parts_[number - front_].buffers.push_back(std::exchange(filling, Buffer()));
    if (number == front_) changed_.notify_all();
  }
  return Status::Ok();
}

std::optional<Buffer> RangedFetch::Next() {
  std::unique_lock lock(mutex_);
  while (front_ < part_count_) {
    changed_.wait(lock, cc_.stop(), [this] {
      return !parts_.empty() && (!parts_.front().buffers.empty() || parts_.front().done);
    });
    if (parts_.empty()) return std::nullopt;
    Part& part = parts_.front();
    if (!part.buffers.empty()) {
      std::optional<Buffer> buffer(std::move(part.buffers.front()));
      part.buffers.pop_front();
      return buffer;
    }
    if (!part.done) return std::nullopt;
    parts_.pop_front();
    ++front_;
    changed_.notify_all();
  }
  return std::nullopt;
}

}  // namespace crisp::imaged
