#include "services/imaged/store/disk_usage.h"

#include <algorithm>

#include "libs/base/cleanup.h"
#include "libs/os/btrfs.h"
#include "libs/os/files.h"

namespace crisp::imaged {
namespace {

constexpr auto kFresh = std::chrono::seconds(1);
constexpr int kShare = 10;  // of the time at most the tenth part is spent on measuring
constexpr auto kPatience = std::chrono::milliseconds(200);

void Add(const std::string& path, Usage& sum) {
  const Result<Usage> found = MeasureTree(path);
  if (!found.ok()) return;  // it went meanwhile
  sum.bytes += found->bytes;
  sum.inodes += found->inodes;
}

}  // namespace

DiskUsage::DiskUsage(const Layout& layout, Clock& clock, Later later)
    : state_(std::make_shared<State>(layout, clock)), later_(std::move(later)) {}

void DiskUsage::Measure(State& state) {
  const SteadyTime start = state.clock.Now();
  Numbers numbers;
  Add(state.layout.Staging(), numbers.temporary);
  Add(state.layout.Trash(), numbers.temporary);
  if (state.layout.snapshots_root() != state.layout.root()) {
    Add(state.layout.Snapshots(), numbers.containers);
    // Subvolumes are file systems of their own to whoever walks.
    const Result<std::vector<std::string>> owners = os::ListDir(state.layout.Snapshots());
    for (const std::string& owner : owners.ok() ? *owners : std::vector<std::string>()) {
      const std::string root = state.layout.Snapshot(owner) + "/rootfs";
      if (os::IsSubvolume(root)) Add(root, numbers.containers);
    }
    Add(state.layout.SnapshotsTrash(), numbers.containers);
  }
  const std::chrono::nanoseconds took = state.clock.Now() - start;
  const std::lock_guard lock(state.mutex);
  state.numbers = numbers;
  state.stale_at = start + std::max<std::chrono::nanoseconds>(kFresh, kShare * took);
}

void DiskUsage::Refresh() {
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->measuring || state_->clock.Now() < state_->stale_at) return;
    state_->measuring = true;
  }
  // Goes with the task, whether that ran or not.
  const auto done = std::make_shared<Cleanup>([state = state_] {
    const std::lock_guard lock(state->mutex);
    state->measuring = false;
    state->changed.notify_all();
  });
  later_([state = state_, done] { Measure(*state); });
}

DiskUsage::Numbers DiskUsage::Get() {
  Refresh();
  std::unique_lock lock(state_->mutex);
  state_->clock.WaitUntil(lock, state_->changed, state_->clock.Now() + kPatience,
                          [this] { return !state_->measuring; });
  return state_->numbers;
}

}  // namespace crisp::imaged
