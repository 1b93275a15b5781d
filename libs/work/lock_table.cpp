#include "libs/work/lock_table.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <unordered_map>

#include "libs/work/operations.h"
#include "libs/work/wait.h"

namespace crisp::work {
namespace {

struct Waiter {
  std::condition_variable_any changed;
  bool granted = false;
};

}  // namespace

struct LockTable::State {
  mutable std::mutex mutex;
  /// Held keys, each with those who wait for it.
  std::unordered_map<std::string, std::deque<Waiter*>> keys;

  void Release(const std::string& key) {
    std::lock_guard lock(mutex);
    const auto entry = keys.find(key);
    if (entry->second.empty()) {
      keys.erase(entry);
      return;
    }
    Waiter* next = entry->second.front();
    entry->second.pop_front();
    next->granted = true;
    next->changed.notify_all();  // under the lock: the waiter may go as soon as it is free
  }
};

LockTable::Held& LockTable::Held::operator=(Held&& other) noexcept {
  if (this != &other) {
    Release();
    state_ = std::exchange(other.state_, nullptr);
    key_ = std::move(other.key_);
  }
  return *this;
}

void LockTable::Held::Release() {
  if (State* state = std::exchange(state_, nullptr)) state->Release(key_);
}

LockTable::LockTable() : state_(std::make_unique<State>()) {}
LockTable::~LockTable() = default;

Result<LockTable::Held> LockTable::Lock(const CallContext& cc, const std::string& key) {
  std::unique_lock lock(state_->mutex);
  const auto [entry, free] = state_->keys.try_emplace(key);
  if (free) return Held(state_.get(), key);

  const Stage stage(cc, fmt::format("wait for another call that is at {}", key));
  Waiter self;
  entry->second.push_back(&self);
  const auto granted = [&self] { return self.granted; };
  if (WaitUnlessOver(cc, lock, self.changed, granted)) return Held(state_.get(), key);
  std::erase(state_->keys[key], &self);
  if (cc.stop().stop_requested()) return Cancelled("the caller went away");
  return DeadlineExceeded("another operation on it is under way");
}

Result<LockTable::Held> LockTable::TryLock(const std::string& key) {
  std::lock_guard lock(state_->mutex);
  if (!state_->keys.try_emplace(key).second) {
    return Unavailable("another operation on it is under way");
  }
  return Held(state_.get(), key);
}

std::size_t LockTable::size() const {
  std::lock_guard lock(state_->mutex);
  return state_->keys.size();
}

}  // namespace crisp::work
