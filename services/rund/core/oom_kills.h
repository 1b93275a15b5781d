#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "libs/base/ids.h"
#include "libs/os/cgroup.h"
#include "services/rund/core/state.h"
#include "services/rund/runtime/exit_files.h"

namespace crisp::rund {

/// Whether a container was killed because its memory was used up.
///
/// systemd removes a scope, and its counters with it, once it is empty. The pod's stay: what of its
/// OOM kills came after a container had begun, and no other container's end accounts for, is that
/// container's. Both are in the records, so that a new run of the daemon knows them too.
class OomKills {
 public:
  OomKills(State& state, const os::Cgroups& cgroups) : state_(state), cgroups_(cgroups) {}

  /// What is counted for a pod with this cgroup now, for the record of a container that begins in
  /// it; nothing where the container's own counter stays.
  std::optional<std::uint64_t> Before(const std::string& pod_cgroup) const;

  struct Verdict {
    bool oom = false;
    std::optional<std::uint64_t> accounted;  // of the pod's, with this one
  };
  /// Of one that ended by SIGKILL, and not by ours. Looks at cgroups: while they are there.
  Verdict Of(const ContainerRecord& container, const ExitRecord& exit) const;
  /// Once the end is stored.
  void Account(const ContainerRecord& container, const Verdict& verdict);

  /// Hold it from Of() to Account(): of two ends at a time each would claim the same kill.
  [[nodiscard]] std::unique_lock<std::mutex> Turn() { return std::unique_lock(turn_); }

 private:
  State& state_;
  const os::Cgroups& cgroups_;
  std::mutex turn_;
};

}  // namespace crisp::rund
