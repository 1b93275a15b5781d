#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cri/v1/api.pb.h"
#include "libs/base/result.h"

namespace crisp::rund {

/// A set of capabilities, bit n for capability n.
using CapabilityBits = std::uint64_t;

struct CapabilitySets {
  CapabilityBits bounding = 0;
  CapabilityBits effective = 0;  // also the permitted set
  CapabilityBits ambient = 0;    // also the inheritable set
  std::vector<std::string> notes;

  bool Has(std::string_view name) const;
  nlohmann::json ToJson() const;
};

/// `defaults`, then add ALL, drop ALL, the single adds, the single drops. What ALL stands for (and
/// what privileged gets) is what the daemon has itself. A user other than root gets no effective
/// ones but the ambient ones.
/// kInvalidArgument: an unknown name. kFailedPrecondition: one asked for by name that the daemon
/// does not have itself; a default that it does not have is a note.
Result<CapabilitySets> BuildCapabilities(std::span<const std::string> defaults,
                                         const runtime::v1::Capability& asked, bool privileged,
                                         bool root_user, CapabilityBits daemon_has);

}  // namespace crisp::rund
