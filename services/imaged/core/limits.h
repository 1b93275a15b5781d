#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "libs/base/units.h"

namespace crisp::imaged {

/// A rate of bytes that many threads share, as a token bucket: what was not used in the last tenth
/// of a second may be used at once. Any thread.
class RateLimit {
 public:
  /// `per_second` 0: no limit, nobody ever waits.
  RateLimit(Bytes per_second, Clock& clock) : per_second_(per_second), clock_(clock) {}

  /// Pays for bytes that have come: waits until the rate has room for them. kCancelled,
  /// kDeadlineExceeded: the call's.
  Status Pay(const CallContext& cc, std::uint64_t count);

 private:
  const Bytes per_second_;
  Clock& clock_;
  std::mutex mutex_;
  std::condition_variable_any woken_;
  SteadyTime paid_until_;  // by then all that was taken is paid for
};

/// How far a layer may grow when it is inflated: so many times as large as it came, once it is
/// larger than what any layer may grow to.
struct Expansion {
  static constexpr Bytes kFloor = MiB(100);
  std::uint64_t max_times = 200;  // 0: any

  /// Of what has come and has been inflated by now. kResourceExhausted.
  Status Check(std::uint64_t packed, std::uint64_t plain) const;
};

/// Of something there may be so many at a time. Any thread; must outlive its holds.
class Slots {
 public:
  explicit Slots(std::size_t count) : free_(count) {}

  /// One of them, given back with the object.
  class Hold {
   public:
    Hold() = default;
    Hold(Hold&& other) noexcept : slots_(std::exchange(other.slots_, nullptr)) {}
    Hold& operator=(Hold&& other) noexcept;
    ~Hold() { Release(); }
    void Release();

   private:
    friend class Slots;
    explicit Hold(Slots& slots) : slots_(&slots) {}
    Slots* slots_ = nullptr;
  };

  /// Waits for a free one; `what` says so to those who ask. kCancelled, kDeadlineExceeded: the
  /// call's.
  Result<Hold> Take(const CallContext& cc, const std::string& what);

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::size_t free_;
};

}  // namespace crisp::imaged
