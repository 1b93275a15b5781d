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
/// systemd removes a scope, and its counters with it, once it is empty. The pod's stay, and count
/// for all its containers. Those whose scopes are there have counters of their own; what is left
/// was in containers that have ended (settled). Of that, what came after a container had begun, and
/// no other container's end accounts for, is that container's. Both are in the records, so that a
/// new run of the daemon knows them too.
class OomKills {
 public:
  OomKills(State& state, const os::Cgroups& cgroups) : state_(state), cgroups_(cgroups) {}

  /// What is settled in a pod now, for the record of a container that begins in it; nothing where
  /// the container's own counter stays.
  std::optional<std::uint64_t> Before(const PodRecord& pod) const;

  struct Verdict {
    bool oom = false;                        // its first process was killed so
    std::optional<std::uint64_t> accounted;  // of the pod's, with this one
  };
  /// Of any that ends, by itself or not: its children's kills must not be taken for another one's.
  /// Looks at cgroups: while they are there.
  Verdict Of(const ContainerRecord& container, const ExitRecord& exit) const;
  /// Once the end is stored.
  void Account(const ContainerRecord& container, const Verdict& verdict);

  /// Hold it from Of() to Account(): of two ends at a time each would claim the same kill.
  [[nodiscard]] std::unique_lock<std::mutex> Turn() { return std::unique_lock(turn_); }

 private:
  struct Settled {
    std::uint64_t kills = 0;
    bool others_end = false;  // the scope of another one is gone, and its end not yet looked at
  };
  Settled SettledIn(const PodRecord& pod, const std::string& without) const;

  State& state_;
  const os::Cgroups& cgroups_;
  std::mutex turn_;
};

}  // namespace crisp::rund
