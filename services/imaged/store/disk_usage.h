#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "libs/base/clock.h"
#include "services/imaged/store/layout.h"
#include "services/imaged/store/usage.h"

namespace crisp::imaged {

/// Bytes that lie in files without a name, where no walk finds them. Any thread.
using ByteCount = std::atomic<std::uint64_t>;

/// What the catalogue does not know of: layers on their way, what waits to be deleted, containers'
/// own files. Walking them takes time, so it is done beside the questions, and an answer may be
/// older than its question where it takes longer than a moment. Any thread.
class DiskUsage {
 public:
  /// Runs something soon, on another thread or at once. May drop it instead.
  using Later = std::function<void(std::function<void()>)>;

  DiskUsage(const Layout& layout, Clock& clock, Later later);

  struct Numbers {
    Usage temporary;   // of pulls, and trash
    Usage containers;  // snapshots, where they have a place of their own
  };
  /// Has them measured anew, unless they are fresh or that is under way.
  void Refresh();
  /// Refreshed, where that takes no longer than 200 ms; else the last ones, which are 0 at first.
  Numbers Get();

 private:
  struct State {
    State(const Layout& from, Clock& time) : layout(from), clock(time) {}
    const Layout layout;
    Clock& clock;
    std::mutex mutex;
    std::condition_variable_any changed;
    Numbers numbers;
    bool measuring = false;
    SteadyTime stale_at;
  };
  static void Measure(State& state);

  std::shared_ptr<State> state_;
  const Later later_;
};

}  // namespace crisp::imaged
