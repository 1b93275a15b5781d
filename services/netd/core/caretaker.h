#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "libs/base/clock.h"
#include "libs/loop/loop.h"
#include "libs/work/pool.h"
#include "services/netd/config.h"
#include "services/netd/core/attach.h"
#include "services/netd/core/readiness.h"

namespace crisp::netd {

/// What nobody asks netd for: it looks at the network when a directory changes and from time to
/// time, undoes what is owed, and has the plugins collect garbage. The loop only gives the beat;
/// all work runs on the pool, which ends before what it works on does.
class Caretaker final : public std::enable_shared_from_this<Caretaker> {
 public:
  /// All of them outlive the pool's last task.
  Caretaker(const Config& config, loop::Loop& loop, work::Pool& pool, Readiness& readiness,
            Networks& networks);

  /// The first beat is at once.
  void Start();
  /// No new work; what is under way hurries. What it did not finish stays recorded.
  void Stop();

 private:
  using Which = std::pair<dev_t, ino_t>;
  struct Watched {
    Which which;  // no directory: 0, 0
    loop::DirWatch watch;
    /// Set by the loop: what is watched has left its path.
    std::shared_ptr<std::atomic<bool>> lost;
    bool failed = false;
  };
  /// Runs `task` on the pool unless the one of before still runs.
  void Submit(work::Lane lane, std::atomic<bool>& running, void (Caretaker::*task)());
  void OnBeat();
  void OnChange();
  // On the pool, each once at a time.
  void Beat();
  void Look();
  void CollectGarbage();
  void SyncHostPorts();
  void Checkpoint();
  void WatchDirectories();
  Status Watch(const std::string& directory, Watched& watched);
  void UndoOwed();
  CallContext Call(std::chrono::nanoseconds timeout) const;

  const Config config_;
  loop::Loop& loop_;
  work::Pool& pool_;
  Readiness& readiness_;
  Networks& networks_;

  std::stop_source stop_;
  std::mutex timers_mutex_;
  loop::Timer beat_;
  loop::Timer debounce_;
  std::atomic<bool> beating_ = false;
  std::atomic<bool> looking_ = false;
  std::atomic<bool> collecting_ = false;
  std::atomic<bool> syncing_ = false;
  std::atomic<bool> checkpointing_ = false;
  std::atomic<bool> change_pending_ = false;
  std::atomic<SteadyTime> next_look_ = SteadyTime();
  std::atomic<SteadyTime> next_gc_ = SteadyTime();
  // Beat's alone.
  std::map<std::string, Watched> watched_;
  SteadyTime next_sync_;
};

}  // namespace crisp::netd
