#pragma once

#include <condition_variable>
#include <mutex>
#include <utility>

namespace crisp {

/// A value that can only be reached under its mutex. Hold the lock for memory work only, never over
/// I/O.
template <typename T>
class Guarded {
 public:
  template <typename... Args>
  explicit Guarded(Args&&... args) : value_(std::forward<Args>(args)...) {}

  class Lock {
   public:
    T* operator->() { return value_; }
    T& operator*() { return *value_; }
    /// For waits on a condition variable while the value is locked.
    std::unique_lock<std::mutex>& lock() { return lock_; }

   private:
    friend class Guarded;
    Lock(std::mutex& mutex, T* value) : lock_(mutex), value_(value) {}
    std::unique_lock<std::mutex> lock_;
    T* value_;
  };

  Lock lock() { return Lock(mutex_, &value_); }
  Lock lock() const { return Lock(mutex_, &value_); }

 private:
  mutable std::mutex mutex_;
  mutable T value_;
};

}  // namespace crisp
