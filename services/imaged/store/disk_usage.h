#pragma once

#include <functional>
#include <memory>

#include "libs/base/clock.h"
#include "libs/base/guarded.h"
#include "services/imaged/store/layout.h"
#include "services/imaged/store/usage.h"

namespace crisp::imaged {

/// What the catalogue does not know of: layers on their way, what waits to be deleted, containers'
/// own files. Walking them takes time, so the answer may be some seconds old; asking never waits.
/// Any thread.
class DiskUsage {
 public:
  /// Runs something soon, on another thread or at once. May drop it instead.
  using Later = std::function<void(std::function<void()>)>;

  DiskUsage(const Layout& layout, Clock& clock, Later later);

  struct Numbers {
    Usage temporary;   // of pulls, and trash
    Usage containers;  // snapshots, where they have a place of their own
  };
  /// The last numbers; has them measured anew when they are old.
  Numbers Get();

 private:
  struct State {
    explicit State(const Layout& from) : layout(from) {}
    const Layout layout;
    struct Shared {
      Numbers numbers;
      bool measuring = false;
      bool known = false;
      SteadyTime measured;
    };
    Guarded<Shared> shared;
  };
  static void Measure(State& state, SteadyTime now);

  std::shared_ptr<State> state_;
  Clock& clock_;
  const Later later_;
};

}  // namespace crisp::imaged
