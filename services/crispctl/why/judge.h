#pragma once

#include <optional>
#include <string>

#include "services/crispctl/why/gather.h"

namespace crisp::ctl::why {

/// What holds something up, and what a person can do about it.
struct Culprit {
  std::string what = {};
  std::string hint = {};
};

/// The innermost step that is under way, and who does it.
struct Wait {
  std::string daemon = {};
  std::string step = {};  // "plugin slow: ADD"
  std::string how_far = {};
  std::chrono::nanoseconds took{};
  std::optional<Place> place = {};  // of the process, or of the daemon's own thread
  std::string peer = {};  // the daemon that it waits for, which has no part in the request
};

/// What the request waits for now: of the daemon that works for it, not of those which wait for
/// that. `places`: look at the processes too.
Wait WaitOf(const Request& request);

Culprit JudgeRequest(const Wait& wait, const std::vector<Daemon>& daemons);
/// Of one that does not answer.
Culprit JudgeDaemon(const Daemon& daemon);
Culprit JudgeDisk(const FullDisk& disk);
Culprit JudgePlace(const Place& place);
/// Nothing: the error says all.
std::optional<Culprit> JudgeFailure(const Failure& failure);

}  // namespace crisp::ctl::why
