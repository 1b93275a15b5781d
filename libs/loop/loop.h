#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "libs/base/result.h"
#include "libs/base/status.h"

namespace boost::asio {
class io_context;
}

namespace crisp::loop {

namespace internal {
/// Something that is under way on the loop; Cancel() may be called on any thread, more than once.
class Watch {
 public:
  virtual ~Watch() = default;
  virtual void Cancel() = 0;
};
}  // namespace internal

/// Keeps a timer or a watch going; the destructor cancels it. Destroyed on the loop's thread, no
/// handler runs after it. On another thread a handler that has begun may still be running: what
/// it touches must be held weakly, or the loop stopped first.
class [[nodiscard]] Handle {
 public:
  Handle() = default;
  explicit Handle(std::shared_ptr<internal::Watch> watch) : watch_(std::move(watch)) {}
  Handle(Handle&&) noexcept = default;
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      Cancel();
      watch_ = std::move(other.watch_);
    }
    return *this;
  }
  ~Handle() { Cancel(); }

  void Cancel() {
    if (auto watch = std::move(watch_)) watch->Cancel();
  }
  explicit operator bool() const { return watch_ != nullptr; }

 private:
  std::shared_ptr<internal::Watch> watch_;
};

using Timer = Handle;
using FdWatch = Handle;
using DirWatch = Handle;
using SignalWatch = Handle;

enum class DirEvent {
  kAppeared,
  kGone
};  // created, moved in or closed after writing; deleted, moved out

/// An io_context on one thread of its own. Its methods may be called on any thread; handlers run on
/// the loop's thread, one at a time, and never block.
class Loop {
 public:
  Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  /// Stop().
  ~Loop();

  /// Starts the thread. Handlers that were posted before run then.
  void Start();
  /// Ends the thread after the handler that runs now. Idempotent. Not on the loop's thread.
  void Stop();
  /// True on the loop's thread.
  bool InLoop() const;

  void Post(std::function<void()> fn);
  Timer After(std::chrono::nanoseconds delay, std::function<void()> fn);
  /// The first time after one period. A handler that takes longer delays the next one, never piles
  /// up.
  Timer Every(std::chrono::nanoseconds period, std::function<void()> fn);
  /// `fn` each time `fd` is readable (a pidfd: the process ended), until the handle goes. The fd
  /// stays the caller's and must stay open until then.
  Result<FdWatch> WatchReadable(int fd, std::function<void()> fn);
  /// `fn(name, event)` for each entry that appears in or leaves the directory. What is there
  /// already is not told: list it after this call. Events that the kernel dropped (overflow) come
  /// as ("", kAppeared): list again. ("", kGone): the directory itself was removed, moved away or
  /// unmounted, what its path names now must be watched anew.
  Result<DirWatch> WatchDirectory(const std::string& path,
                                  std::function<void(const std::string& name, DirEvent)> fn);
  /// `fn(signal)` in place of the default action.
  SignalWatch OnSignals(const std::vector<int>& signals, std::function<void(int)> fn);

  /// For libraries that speak asio themselves (http, streaming).
  boost::asio::io_context& io();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace crisp::loop
