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

  /// A token that nobody guesses. kResourceExhausted: too many that nobody has come for.
  Result<std::string> Put(Request request);
  /// kNotFound: unknown, used or too old.
  Result<Request> Peek(const std::string& token) const;
  void Use(const std::string& token);
  std::size_t size() const;

 private:
  struct Entry {
    SteadyTime until;
    Request request;
  };
  Clock& clock_;
  Guarded<std::map<std::string, Entry>> entries_;
};

inline constexpr std::chrono::minutes kTokenLife{1};
inline constexpr std::size_t kMaxTokens = 1000;

}  // namespace crisp::rund::streaming
