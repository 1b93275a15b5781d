#include "services/imaged/core/ranged_fetch.h"

#include <algorithm>

#include "libs/base/try.h"
#include "libs/log/log.h"

namespace crisp::imaged {
namespace {

// What a connection must bring before it breaks so that its part is asked for again.
constexpr std::uint64_t kProgress = std::uint64_t{64} << 10U;

}  // namespace

void ConnectionCount::Measured(double rate) {
  constexpr double kWorthIt = 1.2;
  constexpr int kRest = 25;
  if (now_ > kept_ && rate < kept_rate_ * kWorthIt) {
    now_ = kept_;
    rest_ = kRest;
    return;
  }
  kept_ = now_;
  kept_rate_ = rate;
  if (rest_ > 0) {
    --rest_;
  } else {
    now_ = std::min(most_, 2 * kept_);
  }
}

RangedFetch::RangedFetch(const CallContext& cc, std::uint64_t size,
                         std::unique_ptr<BlobReader> first, const OpenBlob& open,
                         const Spread& spread, Slots& slots, BufferPool& pool)
    : cc_(cc.WithStop(stop_.get_token())),
      outer_stop_(cc.stop(), [this] { stop_.request_stop(); }),
      size_(size),
      part_count_((size + kPartSize - 1) / kPartSize),
      open_(open),
      spread_(spread),
      slots_(slots),
      pool_(pool),
      version_(first->version()),
      first_(std::move(first)),
      count_(spread.first, spread.most),
      flowing_(spread.most) {
  const std::size_t count = std::min<std::uint64_t>(spread.most, part_count_);
  for (std::size_t i = 0; i < count; ++i) threads_.emplace_back([this, i] { Work(i); });
}

RangedFetch::~RangedFetch() {
  stop_.request_stop();
  for (std::thread& thread : threads_) thread.join();
}

void RangedFetch::Work(std::size_t worker) {
  Stream stream;
  while (true) {
    Slots::Hold slot;
    const std::optional<std::uint64_t> number = Claim(worker, slot);
    if (!number) return;
    const Status status = FetchPart(*number, worker, stream);
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

bool RangedFetch::MayClaim(std::size_t worker) const {
  const std::uint64_t next = front_ + parts_.size();
  return worker < count_.now() && next < part_count_ && parts_.size() < spread_.most;
}

std::optional<std::uint64_t> RangedFetch::Claim(std::size_t worker, Slots::Hold& slot) {
  std::unique_lock lock(mutex_);
  const auto all_claimed = [this] { return front_ + parts_.size() >= part_count_; };
  while (true) {
    changed_.wait(lock, cc_.stop(), [&] { return MayClaim(worker) || all_claimed(); });
    if (cc_.stop().stop_requested() || all_claimed()) return std::nullopt;
    if (worker == 0) break;
    // Not under the lock: the others go on meanwhile, and may leave nothing to claim.
    lock.unlock();
    Result<Slots::Hold> taken = slots_.Take(cc_, "wait for a connection among the downloads");
    lock.lock();
    if (!taken.ok()) return std::nullopt;
    if (!MayClaim(worker)) continue;
    slot = *std::move(taken);
    break;
  }
  parts_.emplace_back();
  return front_ + parts_.size() - 1;
}

Status RangedFetch::Open(std::uint64_t at, std::uint64_t part_end, Stream& stream) {
  std::uint64_t end = part_end;
  {
    const std::lock_guard lock(mutex_);
    if (count_.now() == 1) end = size_;
  }
  std::unique_ptr<BlobReader> reader = CRISP_TRY(open_(cc_, {.from = at, .size = end - at}));
  if (!reader->is_range()) return Unavailable("a range was asked for, and all came");
  if (reader->version() != version_ || reader->total() != size_)
    return Unavailable("another blob came than for the first part");
  stream = {.reader = std::move(reader), .opened_at = at, .at = at, .end = end};
  return Status::Ok();
}

void RangedFetch::Measure(std::size_t worker, std::uint64_t count) {
  constexpr int kOpenings = 8;  // a connection begins slowly
  constexpr std::chrono::seconds kLongest(3);
  const SteadyTime now = std::chrono::steady_clock::now();
  const auto wanted = flowing_.begin() + static_cast<std::ptrdiff_t>(count_.now());
  const bool flowed = std::find(flowing_.begin(), wanted, false) == wanted;
  flowing_[worker] = true;
  // The window begins once bytes come over all of them.
  if (!flowed) {
    window_from_ = now;
    window_bytes_ = 0;
    return;
  }
  window_bytes_ += count;
  const auto window = std::max<std::chrono::nanoseconds>(
      spread_.window, std::min<std::chrono::nanoseconds>(kOpenings * slowest_open_, kLongest));
  if (now - window_from_ < window) return;
  const std::size_t before = count_.now();
  count_.Measured(static_cast<double>(window_bytes_) /
                  std::chrono::duration<double>(now - window_from_).count());
  window_from_ = now;
  window_bytes_ = 0;
  if (count_.now() == before) return;
  std::fill(flowing_.begin() + static_cast<std::ptrdiff_t>(std::min(before, count_.now())),
            flowing_.end(), false);
  changed_.notify_all();
}

Status RangedFetch::FetchPart(std::uint64_t number, std::size_t worker, Stream& stream) {
  std::uint64_t at = number * kPartSize;
  const std::uint64_t end = std::min(size_, at + kPartSize);
  if (number == 0) {
    const std::lock_guard lock(mutex_);
    stream = {.reader = std::move(first_), .end = spread_.FirstRange(size_).size};
  }
  // Others have taken what came next on it.
  if (stream.at != at) stream.reader.reset();
  Buffer filling;
  while (at < end) {
    const SteadyTime asked = std::chrono::steady_clock::now();
    const bool opens = !stream.reader;
    if (opens) CRISP_TRY(Open(at, end, stream));
    if (!filling.bytes) filling = pool_.Take();
    const std::uint64_t room = std::min<std::uint64_t>(kBufferSize - filling.size, end - at);
    Result<std::size_t> count = stream.reader->Read(
        cc_, {filling.bytes.get() + filling.size, static_cast<std::size_t>(room)});
    if (count.ok() && *count == 0) count = Unavailable("the range ends early");
    if (!count.ok()) {
      const bool progress = at - stream.opened_at >= kProgress;
      if (count.code() != Code::kUnavailable || !progress) return count.status();
      stream.reader.reset();
      continue;
    }
    filling.size += *count;
    at += *count;
    stream.at = at;
    if (at == stream.end) stream.reader.reset();  // its connection is of use to others
    const bool full = filling.size == kBufferSize || at == end;
    if (!opens && !full) continue;
    const std::lock_guard lock(mutex_);
    if (opens) slowest_open_ = std::max(slowest_open_, std::chrono::steady_clock::now() - asked);
    if (!full) continue;
    Measure(worker, filling.size);
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
