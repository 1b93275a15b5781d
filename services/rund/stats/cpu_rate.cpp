#include "services/rund/stats/cpu_rate.h"

namespace crisp::rund {
namespace {

constexpr std::int64_t kWindow = 1'000'000'000;

}  // namespace

void CpuRate::Add(std::int64_t at, std::uint64_t usage) {
  if (base_ && (usage < base_->usage || at < base_->at)) *this = CpuRate();
  if (!base_) {
    base_ = Reading{at, usage};
    return;
  }
  if (next_ && at - next_->at >= kWindow) {
    base_ = next_;
    next_.reset();
  }
  if (!next_ && at - base_->at >= kWindow) next_ = Reading{at, usage};
  const std::int64_t span = at - base_->at;
  if (span < kWindow) return;
  rate_ = static_cast<std::uint64_t>(static_cast<double>(usage - base_->usage) * 1e9 /
                                     static_cast<double>(span));
}

}  // namespace crisp::rund
