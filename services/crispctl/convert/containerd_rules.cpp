#include "services/crispctl/convert/containerd.h"
#include "services/crispctl/convert/containerd_judges.h"

// What becomes of each option of containerd's config.toml: all of the CRI plugin's (containerd 2,
// and 1.x where its version 2 differs), and of the rest what a node may have set. To add one: a
// line here; where its value needs more than Take and Change can do, a function in
// containerd_judges.cpp.

namespace crisp::ctl::convert {
namespace {

constexpr std::string_view kUnit = "the units of crisp's daemons say so";
constexpr std::string_view kSocket = "crisp has sockets of its own below run_root";
constexpr std::string_view kNoTraces = "crisp's own are sent to tracing.endpoint";
constexpr std::string_view kNoNri = "crisp runs no NRI plugins";
constexpr std::string_view kHosts =
    "put it into <registry>/hosts.toml below imaged.hosts_dir (see crisp-imaged(8))";
constexpr std::string_view kCerts = "put the file into <registry>/ below one of imaged.certs_dirs";
constexpr std::string_view kAuth =
    "put the credentials into /etc/crisp/auth.json (see imaged.auth_files)";
constexpr std::string_view kOnePlugin = "containerd's own; nothing in crisp is like it";
constexpr std::string_view kSnapshotters =
    "imaged.driver is overlay, erofs, btrfs or vfs, imaged.image_root says where layers lie";

}  // namespace

const std::vector<Rule>& ContainerdRules() {
  static const std::vector<Rule> kRules = {
      // The daemon.
      {"version", NotNeeded("is the form of this file")},
      {"imports", NotNeeded("the files are read, too")},
      {"root", ContainerdRoot},
      {"state", NotNeeded("crisp's own run_root is made by its units")},
      {"temp", NotNeeded("layers are unpacked as they come")},
      {"plugin_dir", NotSupported("crisp loads no plugins")},
      {"disabled_plugins", NotNeeded("crisp has no plugins to turn off")},
      {"required_plugins", NotNeeded("all of crisp's parts are required")},
      {"oom_score", NotNeeded(kUnit)},
      {"cgroup/path", NotNeeded("the kubelet names the cgroups of pods")},
      {"grpc/address",
       [](const Case& one) {
         return Finding{Outcome::kChanged, "",
                        "is not taken over, as both may be installed: give the kubelet "
                        "--container-runtime-endpoint=unix:///run/crisp/crisp.sock, or set "
                        "crid.socket to " +
                            one.option.value.text};
       }},
      {"grpc/tcp_address", NotSupported("the CRI is on a unix socket alone")},
      {"grpc/*", NotNeeded(kSocket)},
      {"ttrpc/*", NotNeeded(kSocket)},
      {"debug/level", ContainerdLevel},
      {"debug/format", ContainerdFormat},
      {"debug/log_trace_id", NotSupported(kNoTraces)},
      {"debug/*", NotNeeded("'crispctl debug bundle' and /metrics show what goes on")},
      {"metrics/address", Change("crid.metrics_address", Text,
                                 "the metrics have crisp's names: deploy/monitoring has rules and "
                                 "dashboards")},
      {"metrics/grpc_histogram", NotNeeded("latencies are always histograms")},
      {"proxy_plugins/*/**", NotSupported(kSnapshotters)},
      {"timeouts/*", NotNeeded("crisp's own are netd.*_timeout_seconds, rund.*_timeout_seconds")},
      {"stream_processors/*/**", NotSupported("crisp does not decrypt images")},

      // The CRI plugin: its server.
      {"cri/disable_tcp_service", NotNeeded("the CRI is on a unix socket alone")},
      {"cri/stream_server_address", ContainerdStreamAddress},
      {"cri/stream_server_port", ContainerdStreamPort},
      {"cri/stream_idle_timeout", Take("rund.streaming_idle_timeout_seconds", Seconds)},
      {"cri/enable_tls_streaming", ContainerdStreamTls},
      {"cri/x509_key_pair_streaming/tls_cert_file", Take("rund.streaming_tls_cert", Text)},
      {"cri/x509_key_pair_streaming/tls_key_file", Take("rund.streaming_tls_key", Text)},

      // Its images.
      {"cri/snapshotter", ContainerdSnapshotter},
      {"cri/containerd/snapshotter", ContainerdSnapshotter},
      {"cri/disable_snapshot_annotations", NotNeeded("are for snapshotters that crisp has not")},
      {"cri/containerd/disable_snapshot_annotations",
       NotNeeded("are for snapshotters that crisp has not")},
      {"cri/discard_unpacked_layers", NotNeeded("layers are never kept packed")},
      {"cri/containerd/discard_unpacked_layers", NotNeeded("layers are never kept packed")},
      {"cri/max_concurrent_downloads", Take("imaged.parallel_layers", Number)},
      {"cri/concurrent_layer_fetch_buffer",
       NotNeeded("imaged.layer_connections says how many a large layer has")},
      {"cri/image_pull_progress_timeout", ContainerdPullTimeout},
      {"cri/image_pull_with_sync_fs", NotNeeded("an image is on the disk before it is there")},
      {"cri/use_local_image_pull", NotNeeded("imaged pulls")},
      {"cri/sandbox_image", NotNeeded("pods have no pause container")},
      {"cri/pinned_images/*", ContainerdPinned},
      {"cri/runtime_platforms/*/**", NotSupported("images are those of the node's platform")},
      {"cri/image_decryption/key_model", NotSupported("crisp does not decrypt images")},
      {"cri/registry/config_path", ContainerdConfigPath},
      {"cri/registry/mirrors/*/endpoint", ContainerdMirror},
      {"cri/registry/mirrors/*/rewrite/**", NotSupported(kHosts)},
      {"cri/registry/configs/*/tls/insecure_skip_verify", ContainerdInsecure},
      {"cri/registry/configs/*/tls/*", NotSupported(kCerts)},
      {"cri/registry/configs/*/auth/*", NotSupported(kAuth)},
      {"cri/registry/auths/*/*", NotSupported(kAuth)},
      {"cri/registry/headers/*", NotSupported(kHosts)},

      // Its pods and containers.
      {"cri/enable_selinux", Take("rund.selinux", Bool)},
      {"cri/selinux_category_range", NotNeeded("crisp takes categories from all 1024")},
      {"cri/max_container_log_line_size", NotNeeded("conmon cuts long lines, marked as such")},
      {"cri/disable_cgroup", NotSupported("crisp needs cgroups")},
      {"cri/disable_apparmor", NotSupported("set appArmorProfile: Unconfined in the pods")},
      {"cri/restrict_oom_score_adj", NotNeeded("rund may lower the score")},
      {"cri/disable_proc_mount", NotSupported("leave procMount out of the pods")},
      {"cri/unset_seccomp_profile", ContainerdSeccomp},
      {"cri/tolerate_missing_hugetlb_controller", ContainerdHugetlb},
      {"cri/disable_hugetlb_controller", ContainerdHugetlb},
      {"cri/device_ownership_from_security_context",
       Take("rund.device_ownership_from_security_context", Bool)},
      {"cri/ignore_image_defined_volumes",
       NotSupported("a VOLUME of an image is always a directory of the container's own")},
      {"cri/netns_mounts_under_state_dir", NotNeeded("they are below crisp's run_root")},
      {"cri/enable_unprivileged_ports", ContainerdPorts},
      {"cri/enable_unprivileged_icmp", ContainerdIcmp},
      {"cri/enable_cdi", NotNeeded("CDI is always there; empty rund.cdi_spec_dirs turn it off")},
      {"cri/cdi_spec_dirs", Take("rund.cdi_spec_dirs", List)},
      {"cri/drain_exec_sync_io_timeout", NotNeeded("an ExecSync ends at the kubelet's deadline")},
      {"cri/ignore_deprecation_warnings", NotNeeded("are about containerd")},
      {"cri/stats_collect_period", NotNeeded("stats are read when they are asked for")},
      {"cri/stats_retention_period", NotNeeded("stats are read when they are asked for")},
      {"cri/enable_criu", NotNeeded("containers can be checkpointed where there is a criu")},
      {"cri/enable_experimental_restore_via_create", Take("rund.restore_checkpoints", Bool)},
      {"cri/systemd_cgroup", NotNeeded("containerd itself no longer looks at it")},
      {"built in/default capabilities", Take("rund.default_capabilities", List)},

      // Its handlers.
      {"cri/containerd/default_runtime_name", ContainerdDefaultRuntime},
      {"cri/containerd/no_pivot", NotSupported("/run/crisp is no ramfs root: pivot_root works")},
      {"cri/containerd/ignore_blockio_not_enabled_errors",
       NotNeeded("classes are looked for only where rund.blockio_config_file names some")},
      {"cri/containerd/ignore_rdt_not_enabled_errors",
       NotNeeded("classes are looked for only where pods name some")},
      {"cri/containerd/default_runtime/**", NotSupported("name one of the runtimes in "
                                                         "rund.default_runtime")},
      {"cri/containerd/untrusted_workload_runtime/**", NotSupported("use a RuntimeClass")},
      {"cri/containerd/runtimes/*/runtime_type", ContainerdRuntimeType},
      {"cri/containerd/runtimes/*/runtime_path", NotSupported("crisp starts no shims: name the OCI "
                                                              "program in the handler's path")},
      {"cri/containerd/runtimes/*/runtime_engine", NotNeeded("is for a runtime of the past")},
      {"cri/containerd/runtimes/*/runtime_root", OfRuntime(Take("rund.runtimes.*.root", Text))},
      {"cri/containerd/runtimes/*/pod_annotations", OfRuntime(ContainerdAnnotations)},
      {"cri/containerd/runtimes/*/container_annotations", OfRuntime(ContainerdAnnotations)},
      {"cri/containerd/runtimes/*/privileged_without_host_devices",
       OfRuntime(Take("rund.runtimes.*.privileged_without_host_devices", Bool))},
      {"cri/containerd/runtimes/*/privileged_without_host_devices_all_devices_allowed",
       NotSupported("give the containers the devices that they need")},
      {"cri/containerd/runtimes/*/cgroup_writable",
       NotSupported("only privileged containers may write to their cgroups")},
      {"cri/containerd/runtimes/*/base_runtime_spec",
       NotSupported(
           "put what you need of it (environment, mounts, hooks, limits) into a file of its "
           "own for the handler's base_spec: crisp takes a part of a spec, no whole one")},
      {"cri/containerd/runtimes/*/cni_conf_dir",
       NotSupported("all handlers have the networks of netd.conf_dirs")},
      {"cri/containerd/runtimes/*/cni_max_conf_num",
       NotSupported("all handlers have the networks of netd.conf_dirs")},
      {"cri/containerd/runtimes/*/snapshotter",
       NotSupported("imaged.driver holds for all handlers")},
      {"cri/containerd/runtimes/*/sandboxer", ContainerdSandboxer},
      {"cri/containerd/runtimes/*/sandbox_mode", ContainerdSandboxer},
      {"cri/containerd/runtimes/*/disable_pause_image_pull",
       NotNeeded("pods have no pause container")},
      {"cri/containerd/runtimes/*/io_type", NotNeeded("conmon carries what containers write")},
      {"cri/containerd/runtimes/*/options/BinaryName", ContainerdBinary},
      {"cri/containerd/runtimes/*/options/Root", OfRuntime(Take("rund.runtimes.*.root", Text))},
      {"cri/containerd/runtimes/*/options/SystemdCgroup", ContainerdSystemdCgroup},
      {"cri/containerd/runtimes/*/options/NoPivotRoot",
       NotSupported("/run/crisp is no ramfs root: pivot_root works")},
      {"cri/containerd/runtimes/*/options/NoNewKeyring",
       NotSupported("containers have keyrings of their own")},
      {"cri/containerd/runtimes/*/options/ShimCgroup",
       NotNeeded("monitors stay in the unit of rund")},
      {"cri/containerd/runtimes/*/options/IoUid", NotNeeded("conmon's pipes belong to root")},
      {"cri/containerd/runtimes/*/options/IoGid", NotNeeded("conmon's pipes belong to root")},
      {"cri/containerd/runtimes/*/options/CriuPath", NotNeeded("crisp does not checkpoint")},
      {"cri/containerd/runtimes/*/options/CriuImagePath", NotNeeded("crisp does not checkpoint")},
      {"cri/containerd/runtimes/*/options/CriuWorkPath", NotNeeded("crisp does not checkpoint")},
      {"cri/containerd/runtimes/*/options/TaskApiAddress", NotNeeded("crisp starts no shims")},
      {"cri/containerd/runtimes/*/options/TaskApiVersion", NotNeeded("crisp starts no shims")},
      // Of a shim that crisp does not start.
      {"cri/containerd/runtimes/*/options/**",
       NotSupported("is an option of the shim: name a program in the handler's path")},

      // Its networks.
      {"cri/cni/bin_dir", ContainerdBinDir},
      {"cri/cni/bin_dirs", Take("netd.bin_dirs", List)},
      {"cri/cni/conf_dir", Take("netd.conf_dirs", ListOfOne)},
      {"cri/cni/max_conf_num", ContainerdMaxConf},
      {"cri/cni/setup_serially", NotNeeded("the plugins of a network always run one by one")},
      {"cri/cni/conf_template",
       NotSupported("write the network's configuration to netd.conf_dirs")},
      {"cri/cni/ip_pref", ContainerdIpPreference},
      {"cri/cni/use_internal_loopback", NotNeeded("netd sets up lo itself")},

      // Other plugins.
      {"plugins/io.containerd.transfer.v1.local/max_concurrent_downloads",
       Take("imaged.parallel_layers", Number)},
      {"plugins/io.containerd.transfer.v1.local/config_path", ContainerdConfigPath},
      {"plugins/io.containerd.transfer.v1.local/**", NotNeeded("imaged pulls")},
      {"plugins/io.containerd.server.v1.metrics/address",
       Change("crid.metrics_address", Text,
              "the metrics have crisp's names: deploy/monitoring has rules and dashboards")},
      {"plugins/io.containerd.server.v1.debug/level", ContainerdLevel},
      {"plugins/io.containerd.server.v1.debug/format", ContainerdFormat},
      {"plugins/io.containerd.server.v1.debug/**", NotNeeded(kSocket)},
      {"plugins/io.containerd.server.v1.grpc/**", NotNeeded(kSocket)},
      {"plugins/io.containerd.server.v1.grpc-tcp/**", NotSupported("the CRI is on a unix socket")},
      {"plugins/io.containerd.server.v1.ttrpc/**", NotNeeded(kSocket)},
      {"plugins/io.containerd.metrics.v1.grpc-prometheus/**",
       NotNeeded("latencies are always histograms")},
      {"plugins/io.containerd.nri.v1.nri/disable",
       [](const Case& one) {
         return IsOff(one.option.value) ? NotSupportedHere(
                                              "crisp runs no NRI plugins; OCI hooks "
                                              "and CDI are there")
                                        : NotNeededHere("is off, as it is in crisp");
       }},
      {"plugins/io.containerd.nri.v1.nri/**", NotNeeded(kNoNri)},
      {"plugins/io.containerd.image-verifier.v1.bindir/**",
       NotSupported("imaged.policy says which images are trusted")},
      {"plugins/io.containerd.tracing.processor.v1.otlp/**", NotSupported(kNoTraces)},
      {"plugins/io.containerd.internal.v1.tracing/**", NotSupported(kNoTraces)},
      {"plugins/io.containerd.internal.v1.opt/**", NotNeeded(kOnePlugin)},
      {"plugins/io.containerd.internal.v1.restart/**",
       NotNeeded("the kubelet restarts containers")},
      {"plugins/io.containerd.monitor.container.v1.restart/**",
       NotNeeded("the kubelet restarts containers")},
      {"plugins/io.containerd.gc.v1.scheduler/**",
       NotNeeded("imaged frees what belongs to nobody")},
      {"plugins/io.containerd.metadata.v1.bolt/**", NotNeeded("crisp's records are SQLite")},
      {"plugins/io.containerd.monitor.v1.cgroups/**", NotNeeded("metrics are always there")},
      {"plugins/io.containerd.monitor.task.v1.cgroups/**", NotNeeded("metrics are always there")},
      {"plugins/io.containerd.runtime.v1.linux/**", NotNeeded("is for a runtime of the past")},
      {"plugins/io.containerd.runtime.v2.task/**", NotSupported("crisp has no core scheduling")},
      {"plugins/io.containerd.shim.v1.manager/**", NotNeeded("crisp starts no shims")},
      {"plugins/io.containerd.service.v1.diff-service/**", NotNeeded(kOnePlugin)},
      {"plugins/io.containerd.service.v1.tasks-service/blockio_config_file",
       Take("rund.blockio_config_file", Text)},
      {"plugins/io.containerd.service.v1.tasks-service/**",
       NotSupported("crisp makes no RDT classes: pods may name those that resctrl has")},
      {"plugins/io.containerd.differ.v1.erofs/**", NotNeeded(kOnePlugin)},
      {"plugins/io.containerd.mount-manager.v1.bolt/**", NotNeeded(kOnePlugin)},
      {"plugins/io.containerd.sandbox.controller.v1.shim/**", NotNeeded("crisp starts no shims")},
      {"plugins/io.containerd.grpc.v1.introspection/**", NotNeeded(kOnePlugin)},
      {"plugins/io.containerd.snapshotter.v1.overlayfs/**", NotSupported(kSnapshotters)},
      {"plugins/io.containerd.snapshotter.v1.native/**", NotSupported(kSnapshotters)},
      {"plugins/io.containerd.snapshotter.v1.btrfs/**", NotNeeded(kSnapshotters)},
      {"plugins/io.containerd.snapshotter.v1.zfs/**", NotNeeded(kSnapshotters)},
      {"plugins/io.containerd.snapshotter.v1.aufs/**", NotNeeded(kSnapshotters)},
      {"plugins/io.containerd.snapshotter.v1.devmapper/**", NotNeeded(kSnapshotters)},
      {"plugins/io.containerd.snapshotter.v1.blockfile/**", NotNeeded(kSnapshotters)},
      {"plugins/io.containerd.snapshotter.v1.erofs/**", NotNeeded(kSnapshotters)},
  };
  return kRules;
}

const std::vector<Default>& ContainerdDefaults(std::int64_t version) {
  // What containerd gives containers that ask for nothing; no option says so.
  static const std::vector<std::string> kCapabilities = {
      "CHOWN",   "DAC_OVERRIDE", "FSETID",           "FOWNER",
      "MKNOD",   "NET_RAW",      "SETGID",           "SETUID",
      "SETFCAP", "SETPCAP",      "NET_BIND_SERVICE", "SYS_CHROOT",
      "KILL",    "AUDIT_WRITE"};
  static const std::vector<Default> kOlder = {
      {"cri/enable_selinux", TomlBool(false)},
      {"cri/containerd/runtimes/*/options/BinaryName", TomlOf("")},
      {"built in/default capabilities", TomlOf(kCapabilities)},
  };
  static const std::vector<Default> kNewer = [] {
    std::vector<Default> defaults = kOlder;
    defaults.push_back({"cri/enable_unprivileged_ports", TomlBool(true)});
    defaults.push_back({"cri/enable_unprivileged_icmp", TomlBool(true)});
    return defaults;
  }();
  return version < 3 ? kOlder : kNewer;
}

std::vector<std::string> CanonicalPath(const std::vector<std::string>& path) {
  const bool plugin = path.size() > 2 && path[0] == "plugins";
  if (!plugin ||
      (path[1] != "io.containerd.grpc.v1.cri" && path[1] != "io.containerd.cri.v1.runtime" &&
       path[1] != "io.containerd.cri.v1.images")) {
    return path;
  }
  std::vector<std::string> canonical = {"cri"};
  canonical.insert(canonical.end(), path.begin() + 2, path.end());
  return canonical;
}

}  // namespace crisp::ctl::convert
