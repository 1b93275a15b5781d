#pragma once

#include <optional>
#include <string_view>

#include "libs/base/clock.h"
#include "libs/base/result.h"

namespace crisp::ctl {

/// "2026-11-26T14:25:28.123456789+01:00" or with a Z: how a log has its times (RFC 3339). Nothing
/// for what is no such time.
std::optional<WallTime> ParseLogTime(std::string_view text);

/// So long before `now` ("90s", "1h30m", "2d"), or a time as a log has it.
/// kInvalidArgument: neither.
Result<WallTime> ParseSince(std::string_view text, WallTime now);

}  // namespace crisp::ctl
