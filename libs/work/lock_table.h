#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "libs/base/call_context.h"
#include "libs/base/result.h"

namespace crisp::work {

/// A lock per key, made when wanted and gone when free. First come, first served. Order between
/// objects is the caller's: pod before container. The table must outlive what is held.
class LockTable {
  struct State;

 public:
  /// Owns the lock of one key; the destructor gives it back. May be moved to, and released on,
  /// another thread.
  class [[nodiscard]] Held {
   public:
    Held() = default;
    Held(Held&& other) noexcept
        : state_(std::exchange(other.state_, nullptr)), key_(std::move(other.key_)) {}
    Held& operator=(Held&& other) noexcept;
    ~Held() { Release(); }
    void Release();

   private:
    friend class LockTable;
    Held(State* state, std::string key) : state_(state), key_(std::move(key)) {}
    State* state_ = nullptr;
    std::string key_;
  };

  LockTable();
  LockTable(const LockTable&) = delete;
  LockTable& operator=(const LockTable&) = delete;
  ~LockTable();

  /// Waits for the key until the call's deadline or stop: kDeadlineExceeded, kCancelled.
  Result<Held> Lock(const CallContext& cc, const std::string& key);
  /// kUnavailable when somebody holds it.
  Result<Held> TryLock(const std::string& key);
  /// Keys that are held now.
  std::size_t size() const;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace crisp::work
