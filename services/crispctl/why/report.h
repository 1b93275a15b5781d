#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "services/crispctl/why/gather.h"
#include "services/crispctl/why/judge.h"

namespace crisp::ctl::why {

/// What is to be told of a picture.
struct Report {
  struct Slow {
    Request request = {};
    Wait wait = {};
    Culprit culprit = {};
  };
  std::vector<Slow> slow = {};
  std::vector<Culprit> daemons = {};
  std::vector<Culprit> disks = {};
  std::vector<std::pair<Sleeping, Culprit>> sleeping = {};
  std::vector<Failure> failures = {};

  /// `failures_count`: what failed lately is reason enough.
  bool Anything(bool failures_count) const;
};

inline constexpr std::size_t kEveryFailure = 1'000'000;

/// Of what has taken at least `from`, and the last failures, `failures` of them at most.
Report Judge(const Picture& picture, std::chrono::nanoseconds from, std::size_t failures);

std::string AsText(const Report& report);
nlohmann::json AsJson(const Report& report);

}  // namespace crisp::ctl::why
