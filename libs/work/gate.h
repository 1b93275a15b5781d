#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>

namespace crisp::work {

/// Lets tasks of a pool or a loop use what belongs to an owner that may go before them: each enters
/// first, and the owner closes the gate before it goes. Held by shared_ptr. Any thread.
class Gate {
 public:
  /// While it lives and is true, what is behind the gate stays.
  class [[nodiscard]] Pass {
   public:
    explicit Pass(Gate* gate) : gate_(gate) {}
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    ~Pass() {
      if (gate_ != nullptr) gate_->Leave();
    }
    explicit operator bool() const { return gate_ != nullptr; }

   private:
    Gate* const gate_;
  };

  /// False once the gate is closed.
  Pass Enter() {
    const std::lock_guard lock(mutex_);
    if (closed_) return Pass(nullptr);
    ++inside_;
    return Pass(this);
  }
  /// Nobody enters any more; waits until those inside have left. Idempotent. What they do must be
  /// told to stop before.
  void Close() {
    std::unique_lock lock(mutex_);
    closed_ = true;
    left_.wait(lock, [this] { return inside_ == 0; });
  }

 private:
  void Leave() {
    const std::lock_guard lock(mutex_);
    if (--inside_ == 0) left_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable left_;
  std::size_t inside_ = 0;
  bool closed_ = false;
};

}  // namespace crisp::work
