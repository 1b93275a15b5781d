#pragma once

#include <string>

#include "libs/base/ids.h"

namespace crisp::netd {

/// What netd has on disk:
///
///   <state_root>/netd/
///     netd.db                the attachments (SQLite), shared by the instances
///     gc.lock                shared: ADD or DEL under way; alone: CNI GC, held by its plugins too
///     gc.turn.lock           alone: who collects garbage or is about to; shared: who is about to
///     ADD pods.lock              who works on a pod: one lock per pod, at its id ports.lock who
///     changes the builtin host ports' table
///   <run_root>/netd/
///     <instance>.sock        gRPC
///     <instance>.metrics.sock
///     netns/<pod id>         the pod's network namespace, bind-mounted on a file
///     route_localnet/<interface>  where we set that sysctl, for builtin host ports
///   <cache_dir>/results/
///     <network>-<pod id>-eth0  the result as libcni caches it; for others, never read
struct Layout {
  std::string state_root;
  std::string run_root;

  std::string StateDir() const { return state_root + "/netd"; }
  std::string Database() const { return StateDir() + "/netd.db"; }
  std::string GcLock() const { return StateDir() + "/gc.lock"; }
  std::string GcTurnLock() const { return StateDir() + "/gc.turn.lock"; }
  std::string PodsLock() const { return StateDir() + "/pods.lock"; }
  std::string PortsLock() const { return StateDir() + "/ports.lock"; }
  std::string NetnsDir() const { return run_root + "/netd/netns"; }
  std::string RoutedDir() const { return run_root + "/netd/route_localnet"; }
  std::string NetnsPath(const PodId& pod) const { return NetnsDir() + "/" + pod.str(); }
};

}  // namespace crisp::netd
