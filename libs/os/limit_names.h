#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "libs/base/result.h"

// The kernel's names of capabilities and resource limits, and modes' masks, as settings and OCI
// specs write them.
namespace crisp::os {

/// How many capabilities we know: their numbers are below it.
inline constexpr int kCapabilities = 41;
/// "CAP_CHOWN" or "chown" → 0; nothing for a name that we do not know.
std::optional<int> CapabilityNumber(std::string_view name);
/// "CAP_CHOWN"; `number` is below kCapabilities.
std::string_view CapabilityName(int number);
/// "ALL" and "CAP_ALL": every one that there is.
bool IsAllCapabilities(std::string_view name);
/// kInvalidArgument: a name that is neither a capability's nor ALL.
Status CheckCapability(std::string_view name);

/// A resource limit of setrlimit(2).
struct ResourceLimit {
  std::string_view name;  // "RLIMIT_NOFILE"
  int resource = 0;       // RLIMIT_NOFILE
};
std::span<const ResourceLimit> ResourceLimits();
/// "nofile" or "RLIMIT_NOFILE"; null for a name that we do not know.
const ResourceLimit* FindResourceLimit(std::string_view name);

/// Limits of a process. RLIM_INFINITY: none.
struct Ulimit {
  std::string name;  // "nofile" or "RLIMIT_NOFILE"
  std::uint64_t soft = 0;
  std::uint64_t hard = 0;
};
/// "nofile=1024:4096"; -1 is no limit. kInvalidArgument: another form, an unknown name, more soft
/// than hard.
Result<Ulimit> ParseUlimit(std::string_view text);

/// "0022", octal with or without the 0. kInvalidArgument: another form, or more than 0777.
Result<std::uint32_t> ParseUmask(std::string_view text);

}  // namespace crisp::os
