#pragma once

#include <string>

#include "libs/base/ids.h"

namespace crisp::netd {

/// What netd has on disk:
///
///   <state_root>/netd/
///     netd.db                the attachments (SQLite), shared by the instances
///   <run_root>/netd/
///     <instance>.sock        gRPC
///     <instance>.metrics.sock
///     netns/<pod id>         the pod's network namespace, bind-mounted on a file
struct Layout {
  std::string state_root;
  std::string run_root;

  std::string StateDir() const { return state_root + "/netd"; }
  std::string Database() const { return StateDir() + "/netd.db"; }
  std::string NetnsDir() const { return run_root + "/netd/netns"; }
  std::string NetnsPath(const PodId& pod) const { return NetnsDir() + "/" + pod.str(); }
};

}  // namespace crisp::netd
