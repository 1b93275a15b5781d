#pragma once

#include <string>
#include <string_view>

#include "cri/v1/api.pb.h"
#include "libs/base/result.h"
#include "services/rund/runtime/logger.h"

namespace crisp::rund {

/// Annotations that limit logs: of a pod, for all its containers or for the one with that name
/// ("rate.crisp.logs/web"), or of a container. The most special one counts.
inline constexpr std::string_view kLogRateAnnotation = "crisp.logs/rate";
inline constexpr std::string_view kLogRateOfContainer = "rate.crisp.logs/";

/// What holds for one container: the node's limits, lowered by what its annotation says. An
/// annotation never raises or lifts what the node has; drop or block is its own to choose.
/// kInvalidArgument names the annotation that cannot be read.
Result<LogLimits> LogLimitsOf(const LogLimits& node, const runtime::v1::PodSandboxConfig& pod,
                              const runtime::v1::ContainerConfig& container);

/// "64KiB", or "64KiB,burst=1MiB,block": the rate a second in bytes, KiB, MiB or GiB (Ki, Mi, Gi),
/// then what differs from `node`.
Result<LogLimits> ParseLogRate(std::string_view text, const LogLimits& node);

}  // namespace crisp::rund
