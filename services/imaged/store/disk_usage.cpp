#include "services/imaged/store/disk_usage.h"

#include "libs/base/cleanup.h"

namespace crisp::imaged {
namespace {

constexpr auto kFresh = std::chrono::seconds(10);

void Add(const std::string& path, Usage& sum) {
  const Result<Usage> found = MeasureTree(path);
  if (!found.ok()) return;  // it went meanwhile
  sum.bytes += found->bytes;
  sum.inodes += found->inodes;
}

}  // namespace

DiskUsage::DiskUsage(const Layout& layout, Clock& clock, Later later)
    : state_(std::make_shared<State>(layout)), clock_(clock), later_(std::move(later)) {}

void DiskUsage::Measure(State& state, SteadyTime now) {
  Numbers numbers;
  Add(state.layout.Staging(), numbers.temporary);
  Add(state.layout.Trash(), numbers.temporary);
  if (state.layout.snapshots_root() != state.layout.root()) {
    Add(state.layout.Snapshots(), numbers.containers);
    Add(state.layout.SnapshotsTrash(), numbers.containers);
  }
  auto shared = state.shared.lock();
  shared->numbers = numbers;
  shared->known = true;
  shared->measured = now;
}

DiskUsage::Numbers DiskUsage::Get() {
  const SteadyTime now = clock_.Now();
  bool measure = false;
  {
    auto shared = state_->shared.lock();
    measure = !shared->measuring && (!shared->known || now - shared->measured >= kFresh);
    if (measure) shared->measuring = true;
  }
  if (measure) {
    // Goes with the task, whether that ran or not.
    const auto done =
        std::make_shared<Cleanup>([state = state_] { state->shared.lock()->measuring = false; });
    later_([state = state_, now, done] { Measure(*state, now); });
  }
  return state_->shared.lock()->numbers;
}

}  // namespace crisp::imaged
