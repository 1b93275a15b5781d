#pragma once

#include <string>

#include "libs/base/ids.h"

namespace crisp::rund {

/// Where one instance of rund keeps what.
///
///     <state_root>/rund/<instance>/            survives a reboot
///       lock                                   held by the running instance
///       records.db                             pods and containers (store/records.h)
///       volumes/<container>/                   directories of the image's VOLUMEs
///       checkpoints/<container>/               files of a checkpoint while it is being written
///       restores/<container>/                  those of the one that it is made from, until it
///       runs
///     <run_root>/rund/<instance>/              gone after a reboot (tmpfs)
///       exits/<container>                      exit code, by conmon's rename
///       runtimes/<name>/                       the OCI runtime's own state
///       seccomp/                               compiled filters
///       pods/<pod>/                            user ipc uts pid (pinned namespaces), shm/ (tmpfs),
///                                              resolv.conf hosts hostname; cgroup, for who has
///                                              lost the record
///       execs/                                 files of the commands that run in containers
///       containers/<container>/                the bundle: config.json rootfs/ (mounts),
///                                              mounts/<n>/ (mounts for the runtime to bind),
///                                              conmon's pid conmon.pid attach ctl winsz exit oom;
///                                              criu.conf of one that is restored;
///                                              log (a FIFO) and log.sock of crisp-log;
///                                              lower/ while the rootfs of a pod with a user
///                                              namespace is being mounted
struct Layout {
  std::string state_dir;
  std::string run_dir;

  static Layout Make(const std::string& state_root, const std::string& run_root,
                     const std::string& instance);

  std::string LockPath() const { return state_dir + "/lock"; }
  std::string DatabasePath() const { return state_dir + "/records.db"; }
  std::string VolumesDir() const { return state_dir + "/volumes"; }
  std::string VolumesOf(const ContainerId& id) const { return VolumesDir() + "/" + id.str(); }

  /// Not in memory: they hold what the processes have in theirs.
  std::string CheckpointsDir() const { return state_dir + "/checkpoints"; }
  std::string CheckpointOf(const ContainerId& id) const {
    return CheckpointsDir() + "/" + id.str();
  }
  std::string RestoresDir() const { return state_dir + "/restores"; }
  std::string RestoreOf(const ContainerId& id) const { return RestoresDir() + "/" + id.str(); }

  std::string ExitsDir() const { return run_dir + "/exits"; }
  std::string ExitPath(const ContainerId& id) const { return ExitsDir() + "/" + id.str(); }
  std::string RuntimesDir() const { return run_dir + "/runtimes"; }
  std::string SeccompDir() const { return run_dir + "/seccomp"; }

  /// Short: it holds sockets.
  std::string ExecsDir() const { return run_dir + "/execs"; }

  std::string PodsDir() const { return run_dir + "/pods"; }
  std::string PodDir(const PodId& id) const { return PodsDir() + "/" + id.str(); }
  std::string UserPath(const PodId& id) const { return PodDir(id) + "/user"; }
  std::string IpcPath(const PodId& id) const { return PodDir(id) + "/ipc"; }
  std::string UtsPath(const PodId& id) const { return PodDir(id) + "/uts"; }
  std::string PidPath(const PodId& id) const { return PodDir(id) + "/pid"; }
  std::string ShmDir(const PodId& id) const { return PodDir(id) + "/shm"; }
  std::string ResolvConfPath(const PodId& id) const { return PodDir(id) + "/resolv.conf"; }
  std::string HostsPath(const PodId& id) const { return PodDir(id) + "/hosts"; }
  std::string CgroupNotePath(const PodId& id) const { return PodDir(id) + "/cgroup"; }
  std::string HostnamePath(const PodId& id) const { return PodDir(id) + "/hostname"; }

  std::string ContainersDir() const { return run_dir + "/containers"; }
  std::string Bundle(const ContainerId& id) const { return ContainersDir() + "/" + id.str(); }
  std::string Rootfs(const ContainerId& id) const { return Bundle(id) + "/rootfs"; }
  std::string LowersDir(const ContainerId& id) const { return Bundle(id) + "/lower"; }
  std::string MountsOf(const ContainerId& id) const { return Bundle(id) + "/mounts"; }
  std::string SpecPath(const ContainerId& id) const { return Bundle(id) + "/config.json"; }
};

}  // namespace crisp::rund
