#include "services/imaged/core/limits.h"

#include <algorithm>
#include <optional>

#include "libs/base/try.h"
#include "libs/work/operations.h"

namespace crisp::imaged {
namespace {

constexpr auto kBurst = std::chrono::milliseconds(100);

}  // namespace

Status RateLimit::Pay(const CallContext& cc, std::uint64_t count) {
  if (per_second_ == Bytes(0)) return Status::Ok();
  const std::stop_callback wake(cc.stop(), [this] {
    const std::lock_guard lock(mutex_);
    woken_.notify_all();
  });
  std::unique_lock lock(mutex_);
  const double seconds = static_cast<double>(count) / static_cast<double>(per_second_.count());
  const auto price =
      std::chrono::duration_cast<SteadyTime::duration>(std::chrono::duration<double>(seconds));
  paid_until_ = std::max(paid_until_, clock_.Now() - kBurst) + price;
  const SteadyTime ours = paid_until_;
  clock_.WaitUntil(lock, woken_, std::min(ours, cc.deadline()),
                   [&cc] { return cc.stop().stop_requested(); });
  lock.unlock();
  return cc.Check();
}

Slots::Hold& Slots::Hold::operator=(Hold&& other) noexcept {
  if (this != &other) {
    Release();
    slots_ = std::exchange(other.slots_, nullptr);
  }
  return *this;
}

void Slots::Hold::Release() {
  if (slots_ == nullptr) return;
  const std::lock_guard lock(slots_->mutex_);
  ++slots_->free_;
  slots_->changed_.notify_all();
  slots_ = nullptr;
}

Result<Slots::Hold> Slots::Take(const CallContext& cc, const std::string& what) {
  std::unique_lock lock(mutex_);
  std::optional<work::Stage> stage;
  if (free_ == 0) stage.emplace(cc, what);
  changed_.wait_until(lock, cc.stop(), cc.deadline(), [this] { return free_ > 0; });
  CRISP_TRY(cc.Check());
  if (free_ == 0) return DeadlineExceeded("the deadline of the call has passed");
  --free_;
  return Hold(*this);
}

Status Expansion::Check(std::uint64_t packed, std::uint64_t plain) const {
  if (max_times == 0 || plain <= kFloor.count() || plain / max_times <= packed) return Status::Ok();
  return ResourceExhausted("{} bytes of the layer unpack to more than {} times as many", packed,
                           max_times);
}

}  // namespace crisp::imaged
