#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "cri/v1/api.pb.h"

namespace crisp::ctl {

/// What uses the node, pod by pod, the busiest first; CPU over the time between two looks.
class Top {
 public:
  explicit Top(bool pods_only) : pods_only_(pods_only) {}

  /// The table of one look. `pods` and `containers` give the names.
  std::string Look(const runtime::v1::ListContainerStatsResponse& stats,
                   const runtime::v1::ListPodSandboxResponse& pods,
                   const runtime::v1::ListContainersResponse& containers);

 private:
  /// Cores in use; below 0: not known yet.
  double Cores(const runtime::v1::ContainerStats& stats);

  bool pods_only_;
  /// By container: when it was looked at and how much it had used until then, in nanoseconds.
  std::map<std::string, std::pair<std::int64_t, std::uint64_t>> before_;
};

}  // namespace crisp::ctl
