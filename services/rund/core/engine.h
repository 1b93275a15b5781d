#pragma once

#include <memory>
#include <string>

#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "libs/metrics/registry.h"
#include "libs/os/file_lock.h"
#include "libs/work/lock_table.h"
#include "libs/work/pool.h"
#include "services/rund/core/checkpoints.h"
#include "services/rund/core/containers.h"
#include "services/rund/core/lifecycle.h"
#include "services/rund/core/parts.h"
#include "services/rund/core/pods.h"
#include "services/rund/core/recovery.h"
#include "services/rund/core/resources.h"

namespace crisp::rund {

/// One instance of rund without its RPC: everything that the app (and a test) needs, made in order.
/// Stop the pool, and wait for it, before this goes.
class Engine {
 public:
  /// Takes the state directory's lock, loads the records and begins the recovery.
  /// kUnavailable: another process holds the state directory; kFailedPrecondition: settings that
  /// this machine cannot keep.
  static Result<std::unique_ptr<Engine>> Open(Config config, work::Pool& pool, Clock& clock,
                                              metrics::Registry& metrics);
  /// Goes on with the recovery: after this exits are seen. Call once, when calls may come.
  void Continue();

  /// Whether ReloadRuntimes would take these settings. Changes nothing. Blocks on the programs.
  Status CheckRuntimes(const Config& fresh) const;
  /// Takes the runtime handlers (and which is the default) from new settings, but for the roots of
  /// those that there were at the start. Blocks on the programs.
  /// kFailedPrecondition: the default one does not work; kInternal …: a directory that cannot be
  /// made. Nothing has changed then.
  Status ReloadRuntimes(const Config& fresh);

  /// Whether a runtime that was missing has come; see Runtimes::LookAgain. Blocks on the programs.
  void LookForRuntimes();

  State& state() { return *state_; }
  Pods& pods() { return pods_; }
  Containers& containers() { return containers_; }
  Resources& resources() { return resources_; }
  Checkpoints& checkpoints() { return checkpoints_; }
  Lifecycle& lifecycle() { return lifecycle_; }
  const Parts& parts() const { return parts_; }
  ~Engine();

 private:
  Engine(Config config, work::Pool& pool, Clock& clock, metrics::Registry& metrics,
         os::Cgroups cgroups, std::unique_ptr<systemd::Units> units, os::FileLock lock,
         std::unique_ptr<State> state, Runtimes runtimes, SpecDefaults spec_defaults,
         Status userns_support);
  Config WithRootsInUse(Config fresh) const;

  Config config_;
  os::Cgroups cgroups_;
  std::unique_ptr<systemd::Units> units_;  // null: not a machine of systemd's
  CgroupDriver cgroup_driver_;
  os::FileLock lock_;
  std::unique_ptr<State> state_;
  Runtimes runtimes_;
  SpecDefaults spec_defaults_;
  Status userns_support_;
  work::LockTable locks_;
  Metrics metrics_;
  Parts parts_;
  Lifecycle lifecycle_;
  Containers containers_;
  Pods pods_;
  Resources resources_;
  Checkpoints checkpoints_;
  Recovery recovery_;
  std::unique_ptr<Supervisor> supervisor_;
};

}  // namespace crisp::rund
