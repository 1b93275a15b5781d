#pragma once

#include <chrono>
#include <map>
#include <string>
#include <utility>

#include "libs/base/clock.h"
#include "libs/base/guarded.h"
#include "libs/base/result.h"
#include "services/rund/streaming/session.h"

namespace crisp::rund::streaming {

/// Requests that a client may ask for by their URL: once, soon, and not too many. Any thread.
class Tokens {
 public:
  explicit Tokens(Clock& clock) : clock_(clock) {}

  /// A token that nobody guesses. kResourceExhausted: too many that nobody has come for, or too
  /// much in them.
  Result<std::string> Put(Request request);
  /// kNotFound: unknown, used or too old.
  Result<Request> Peek(const std::string& token) const;
  void Use(const std::string& token);
  /// Forgets those that are too old.
  void Sweep();
  std::size_t size() const;

 private:
  struct Entry {
    SteadyTime until;
    Request request;
    std::size_t bytes = 0;
  };
  struct Entries {
    std::map<std::string, Entry> by_token;
    std::size_t bytes = 0;
    void Erase(std::map<std::string, Entry>::iterator entry);
    void Sweep(SteadyTime now);
  };
  Clock& clock_;
  Guarded<Entries> entries_;
};

inline constexpr std::chrono::minutes kTokenLife{1};
inline constexpr std::size_t kMaxTokens = 1000;
/// Of all requests that wait, as they come over the wire.
inline constexpr std::size_t kMaxTokenBytes = std::size_t{16} << 20U;

}  // namespace crisp::rund::streaming
