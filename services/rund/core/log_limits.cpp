#include "services/rund/core/log_limits.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "libs/base/try.h"
#include "libs/settings/settings.h"

namespace crisp::rund {
namespace {

constexpr std::string_view kBurst = "burst=";

Result<Bytes> ParseAmount(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  std::uint64_t factor = unit.empty() ? 1 : 0;
  if (unit == "KiB" || unit == "Ki") factor = KiB(1).count();
  if (unit == "MiB" || unit == "Mi") factor = MiB(1).count();
  if (unit == "GiB" || unit == "Gi") factor = GiB(1).count();
  if (error != std::errc() || factor == 0) {
    return InvalidArgument("'{}' is no size (a number, with KiB, MiB or GiB behind it)", text);
  }
  if (value > std::numeric_limits<std::uint64_t>::max() / factor) {
    return InvalidArgument("'{}' is too large", text);
  }
  return Bytes(value * factor);
}

Status CheckRange(std::string_view what, Bytes value, Bytes min, Bytes max) {
  if (value >= min && value <= max) return Status::Ok();
  return InvalidArgument("the {} of {} bytes is not within {} and {}", what, value.count(),
                         min.count(), max.count());
}

/// The value of the most special one that is there.
struct Found {
  std::string key;
  std::string value;
};
Found Find(const runtime::v1::PodSandboxConfig& pod,
           const runtime::v1::ContainerConfig& container) {
  const std::string general(kLogRateAnnotation);
  const std::string special = std::string(kLogRateOfContainer) + container.metadata().name();
  const auto& of_pod = pod.annotations();
  if (const auto it = container.annotations().find(general); it != container.annotations().end()) {
    return {general, it->second};
  }
  for (const std::string& key : {special, general}) {
    if (const auto it = of_pod.find(key); it != of_pod.end()) return {key, it->second};
  }
  return {};
}

}  // namespace

Result<LogLimits> ParseLogRate(std::string_view text, const LogLimits& node) {
  LogLimits limits = node;
  auto comma = text.find(',');
  limits.rate = CRISP_TRY(ParseAmount(text.substr(0, comma)));
  CRISP_TRY(CheckRange("rate", limits.rate, settings::kMinLogRate, settings::kMaxLogRate));
  while (comma != text.npos) {
    text.remove_prefix(comma + 1);
    comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    if (part == "block" || part == "drop") {
      limits.block = part == "block";
    } else if (part.starts_with(kBurst)) {
      limits.burst = CRISP_TRY(ParseAmount(part.substr(kBurst.size())));
      CRISP_TRY(CheckRange("burst", limits.burst, settings::kMinLogBurst, settings::kMaxLogBurst));
    } else {
      return InvalidArgument("'{}' is none of burst=SIZE, drop and block", part);
    }
  }
  return limits;
}

Result<LogLimits> LogLimitsOf(const LogLimits& node, const runtime::v1::PodSandboxConfig& pod,
                              const runtime::v1::ContainerConfig& container) {
  const Found found = Find(pod, container);
  if (found.key.empty()) return node;
  LogLimits limits = CRISP_TRY(ParseLogRate(found.value, node).While("annotation {}", found.key));
  if (node.rate > Bytes(0)) {
    limits.rate = std::min(limits.rate, node.rate);
    limits.burst = std::min(limits.burst, node.burst);
  }
  return limits;
}

}  // namespace crisp::rund
