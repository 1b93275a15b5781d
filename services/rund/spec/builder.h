#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "cri/v1/api.pb.h"
#include "crisp/imaged/v1/imaged.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "libs/os/limit_names.h"
#include "libs/os/namespaces.h"
#include "services/rund/spec/selinux.h"

namespace crisp::rund {

class CdiDirs;
class HookDirs;

/// What the machine and this daemon's own limits allow. Read once at start (DetectHost); a plain
/// value in tests.
struct HostFacts {
  /// Bit n: capability number n is in the daemon's own bounding set. Nobody can be given more.
  std::uint64_t bounding_capabilities = 0;
  /// The lowest oom_score_adj that the daemon may give: its own, or -1000 with CAP_SYS_RESOURCE.
  int lowest_oom_score_adj = -1000;
  /// The daemon's own hard limits ("RLIMIT_NOFILE" -> n) where it may not raise them; what is not
  /// listed is not bounded.
  std::map<std::string, std::uint64_t> hard_limits;
  bool cgroup_v2 = false;                 // pure v2; hybrid machines are v1 here
  std::set<std::string> controllers;      // "cpu", "memory", "hugetlb", ...
  std::set<std::string> huge_page_sizes;  // "2MB", "1GB": as the files of hugetlb are named
  bool swap_accounting = false;           // swap limits can be set
  bool apparmor = false;
  std::string apparmor_profiles = "/sys/kernel/security/apparmor/profiles";
  std::string resctrl = "/sys/fs/resctrl";
  std::string dev_root = "/dev";
  std::string mountinfo = "/proc/self/mountinfo";
};
/// Errors: whatever /proc/self/status or /sys/fs/cgroup answer.
Result<HostFacts> DetectHost();

/// The node's own choices: from the settings, the same for every container.
struct SpecDefaults {
  HostFacts host;
  std::vector<std::string> capabilities;  // with or without CAP_
  std::vector<os::Ulimit> ulimits;
  /// What RuntimeDefault means: a seccomp profile (JSON) on the node; empty = the built-in one.
  std::string seccomp_profile;
  /// Where compiled filters are kept, by hash (a directory that exists or can be made); empty =
  /// compiled each time.
  std::string seccomp_cache_dir;
  /// Host paths that are never made when a mount asks for one that is missing.
  std::vector<std::string> never_created_host_paths = {"/etc/hostname"};
  /// Our own directories: who mounts something above them must not keep our mounts busy.
  std::vector<std::string> storage_roots;
  std::vector<std::string> env;              // "NAME=value"
  std::optional<std::uint32_t> umask;        // absent = the runtime's
  std::vector<runtime::v1::Device> devices;  // of every container
  /// Host paths of those that pods may ask for by annotation.
  std::vector<std::string> annotation_devices;
  /// Devices belong to the container's user and group.
  bool device_ownership = false;
  std::string apparmor_profile;  // what RuntimeDefault means
  SelinuxNode selinux;
  /// Classes of block I/O (LoadBlockioClasses), read for each container that asks; empty = none.
  std::string blockio_config_file;
  /// Null = none at all.
  std::shared_ptr<const CdiDirs> cdi;
  std::shared_ptr<const HookDirs> hooks;
};

/// One configured OCI runtime, as found at start.
struct RuntimeInfo {
  std::string name;     // the handler: "runc"
  std::string path;     // "/usr/bin/runc"
  std::string version;  // "1.1.5"
  bool is_crun = false;
  bool recursive_read_only = false;  // knows the "rro" mount option
  bool user_namespaces = false;
  bool idmapped_mounts = false;  // of single mounts; it must not just pass them over
  /// What it knows of a container is in <root>/<id>, with an exec.fifo until the start (runc,
  /// crun). Others are asked.
  bool state_in_root = false;
  /// Annotations of the pod and of the container that the runtime gets: beginnings of names.
  std::vector<std::string> allowed_annotations = {};
  bool privileged_without_host_devices = false;
  nlohmann::json base_spec = {};  // LoadBaseSpec; null = none
};

/// A pod's own user namespace.
struct UserNamespace {
  std::string path;  // pinned
  os::IdRange uids;
  os::IdRange gids;
};

/// The pod's things that its containers share. An empty path means the host's own, except where
/// said.
struct PodFiles {
  std::string netns_path;     // empty = host network
  std::string ipcns_path;     // empty = host ipc
  std::string utsns_path;     // empty = host uts
  std::string pid_ns_path;    // of the pod's shared PID namespace; empty = a private one each
  std::string resolv_conf;    // file to bind; empty = none
  std::string hosts;          // file to bind; empty = none
  std::string hostname_file;  // file to bind; empty = none
  std::string shm_path;       // directory to bind on /dev/shm; empty = a tmpfs of its own
  std::string hostname;       // for $HOSTNAME
  std::optional<UserNamespace> userns;  // none = the host's
  std::string selinux_level;            // of the pod, "s0:c1,c2"; empty = none
};

struct SpecInputs {
  ContainerId id;
  PodId pod;
  const runtime::v1::ContainerConfig& config;
  const runtime::v1::PodSandboxConfig& sandbox;
  const crisp::imaged::v1::PrepareResponse& image;
  PodFiles pod_files;
  std::string rootfs;       // mounted already
  std::string cgroup_path;  // cgroupfs form: "/kubepods/pod1/crisp-<id>"
  RuntimeInfo runtime;
  /// The container's own directory for the image's VOLUMEs; made when the first one is needed,
  /// removed by the caller with the container.
  std::string volumes_dir;
  /// With pid mode TARGET: the PID namespace of the target container.
  std::string target_pid_ns_path;
  /// The container's own directory for what is mounted on the host's side first (HostMount).
  std::string mounts_dir = {};
  SelinuxLabels labels = {};  // ContainerLabels
};

/// Something that is mounted on the host's side before the runtime binds it into the container.
struct HostMount {
  int index = 0;       // of the CRI's mount
  std::string target;  // below SpecInputs::mounts_dir
  /// An image's files: this directory of them ("" = all).
  std::string image_sub_path;
};

struct BuiltSpec {
  nlohmann::json spec;  // the OCI config.json
  int stop_signal = 15;
  runtime::v1::LinuxContainerUser user;  // for ContainerStatus.user
  std::vector<HostMount> host_mounts;    // to be made by the caller, in this order
  std::vector<std::string> notes;  // what had to be degraded, one sentence each: log each once
};

/// The OCI runtime-spec of a container. Makes what the container needs to find: missing host
/// directories of mounts, VOLUME directories below `volumes_dir`, the working directory in the
/// rootfs. Idempotent. Blocks on files, for as long as `cc` has; calls nobody.
/// Errors: kInvalidArgument names the CRI field that is wrong; kUnimplemented the one that is not
/// supported yet; a message that starts with "RROUnsupported" where the kubelet looks for it;
/// kFailedPrecondition: something that it names is not on the node or in the rootfs;
/// kPermissionDenied from files. Never kNotFound, which callers take for the container's absence.
Result<BuiltSpec> BuildSpec(const CallContext& cc, const SpecInputs& inputs,
                            const SpecDefaults& defaults);

/// The OCI process of an exec in a container whose spec (as given to the runtime) this is: its
/// environment, user, cwd, capabilities and limits, another command. kInvalidArgument: empty
/// command.
Result<nlohmann::json> BuildExecProcess(const nlohmann::json& spec,
                                        std::span<const std::string> command, bool tty);

/// The OCI "resources" of a CRI resources message; absent and zero fields leave no trace. Also for
/// updates. kInvalidArgument: unified on cgroup v1.
Result<nlohmann::json> BuildResources(const runtime::v1::LinuxContainerResources& resources,
                                      const HostFacts& host);

}  // namespace crisp::rund
