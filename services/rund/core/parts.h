#pragma once

#include <string>

#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/os/cgroup.h"
#include "libs/work/lock_table.h"
#include "libs/work/pool.h"
#include "services/rund/config.h"
#include "services/rund/core/state.h"
#include "services/rund/metrics.h"
#include "services/rund/runtime/cgroup_driver.h"
#include "services/rund/runtime/runtimes.h"
#include "services/rund/runtime/supervisor.h"
#include "services/rund/spec/builder.h"

namespace crisp::rund {

/// What the core's classes share; all of it outlives them.
struct Parts {
  const Config& config;
  State& state;
  Clock& clock;
  const os::Cgroups& cgroups;
  const CgroupDriver& cgroup_driver;
  const Runtimes& runtimes;
  const SpecDefaults& spec_defaults;
  /// Whether the kernel has all that pods with user namespaces need; else what is missing.
  const Status& userns_support;
  work::LockTable& locks;
  work::Pool& pool;
  Metrics& metrics;
  /// Set before the first call; null only until the supervisor has started.
  Supervisor* supervisor = nullptr;
};

/// Keys of the LockTable. Order: pod before container.
inline std::string LockKey(const PodId& id) { return "pod/" + id.str(); }
inline std::string LockKey(const ContainerId& id) { return "container/" + id.str(); }

/// What all containers of the pod run under, whatever the settings say by now. kFailedPrecondition:
/// nothing is known of it (a record of an older version).
inline Result<const OciRuntime*> RuntimeOf(const Parts& parts, const PodRecord& pod) {
  // Records of older versions know only what was asked for.
  if (pod.runtime().empty()) return parts.runtimes.Find(pod.runtime_handler());
  return parts.runtimes.Kept(pod.runtime());
}

inline os::ProcessId ProcessOf(const v1::ProcessRecord& record) {
  return {record.pid(), record.start_time()};
}
inline v1::ProcessRecord RecordOf(const os::ProcessId& process) {
  v1::ProcessRecord record;
  record.set_pid(process.pid);
  record.set_start_time(process.start_time);
  return record;
}

}  // namespace crisp::rund
