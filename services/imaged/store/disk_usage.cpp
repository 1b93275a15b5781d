#include "services/imaged/store/disk_usage.h"

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
  Add(state.layout.Snapshots(), numbers.containers);
  if (state.layout.SnapshotsTrash() != state.layout.Trash())
    Add(state.layout.SnapshotsTrash(), numbers.containers);
  *state.shared.lock() = {numbers, false, true, now};
}

DiskUsage::Numbers DiskUsage::Get() {
  const SteadyTime now = clock_.Now();
  bool measure = false;
  {
    auto shared = state_->shared.lock();
    measure = !shared->measuring && (!shared->known || now - shared->measured >= kFresh);
    if (measure) shared->measuring = true;
  }
  if (measure) later_([state = state_, now] { Measure(*state, now); });
  return state_->shared.lock()->numbers;
}

}  // namespace crisp::imaged
