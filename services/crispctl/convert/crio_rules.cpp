#include "services/crispctl/convert/crio.h"
#include "services/crispctl/convert/crio_judges.h"

// What becomes of each option of crio.conf(5), as CRI-O 1.36 has them (and of some that older ones
// had). To add one: a line here; where its value needs more than Take and Change can do, a function
// in crio_judges.cpp.

namespace crisp::ctl::convert {

const std::vector<Rule>& CrioRules() {
  static const std::vector<Rule> kRules = {
      // [crio]
      {"crio/root", CrioRoot},
      {"crio/imagestore", CrioImageStore},
      {"crio/runroot", NotNeeded("crisp's own run_root is made by its units")},
      {"crio/storage_driver", CrioStorageDriver},
      {"crio/storage_option", NotSupported("mount the file system of imaged.image_root with the "
                                           "options that it shall have")},
      {"crio/log_dir", NotNeeded("the kubelet says where each container's log goes")},
      {"crio/version_file", NotNeeded("crisp sees a reboot by the kernel's boot id")},
      {"crio/version_file_persist", NotNeeded("an upgrade of crisp keeps its images")},
      {"crio/clean_shutdown_file", NotNeeded("the store is whole after a power cut")},
      {"crio/internal_wipe", NotNeeded("what a reboot ends is always cleaned up")},
      {"crio/internal_repair", NotNeeded("imaged looks at one layer after the other by itself: "
                                         "imaged.verify_seconds")},

      // [crio.api]
      {"crio/api/listen",
       [](const Case& one) {
         return Finding{Outcome::kChanged, "",
                        "is not taken over, as both may be installed: give the kubelet "
                        "--container-runtime-endpoint=unix:///run/crisp/crisp.sock, or set "
                        "crid.socket to " +
                            one.option.value.text};
       }},
      {"crio/api/stream_address", CrioStreamAddress},
      {"crio/api/stream_port", CrioStreamPort},
      {"crio/api/stream_enable_tls", CrioStreamTls},
      {"crio/api/stream_tls_cert", CrioIfTls("rund.streaming_tls_cert")},
      {"crio/api/stream_tls_key", CrioIfTls("rund.streaming_tls_key")},
      {"crio/api/stream_tls_ca", NotSupported("only the kubelet of this node reaches the streaming "
                                              "server: leave rund.streaming_address on loopback")},
      {"crio/api/stream_idle_timeout", Take("rund.streaming_idle_timeout_seconds", Seconds)},
      {"crio/api/tls_min_version", CrioTlsVersion},
      {"crio/api/tls_cipher_suites", NotSupported("OpenSSL's system-wide configuration says which "
                                                  "there are")},
      {"crio/api/grpc_max_send_msg_size", NotNeeded("the limit is fixed, and large enough")},
      {"crio/api/grpc_max_recv_msg_size", NotNeeded("the limit is fixed, and large enough")},

      // [crio.runtime]
      {"crio/runtime/default_runtime", CrioDefaultRuntime},
      {"crio/runtime/default_ulimits", Take("rund.default_ulimits", Ulimits)},
      {"crio/runtime/no_pivot", NotSupported("/run/crisp is no ramfs root: pivot_root works")},
      {"crio/runtime/decryption_keys_path", NotSupported("crisp does not decrypt images")},
      {"crio/runtime/additional_artifact_stores", NotSupported("crisp has no OCI artifacts")},
      {"crio/runtime/conmon", Take("rund.conmon", Program)},
      {"crio/runtime/conmon_cgroup", NotNeeded("monitors stay in the unit of rund")},
      {"crio/runtime/conmon_env", CrioConmonEnv},
      {"crio/runtime/default_env", Take("rund.default_env", List)},
      {"crio/runtime/min_injected_gomaxprocs",
       NotSupported("set GOMAXPROCS in the pods, or in rund.default_env for all")},
      {"crio/runtime/selinux", Take("rund.selinux", Bool)},
      {"crio/runtime/seccomp_profile", CrioSeccompProfile},
      {"crio/runtime/privileged_seccomp_profile",
       NotSupported("privileged containers have none: name a Localhost profile in the pod")},
      {"crio/runtime/apparmor_profile", CrioAppArmorProfile},
      {"crio/runtime/blockio_config_file", Take("rund.blockio_config_file", Text)},
      {"crio/runtime/blockio_reload", NotNeeded("changes of the file count at once")},
      {"crio/runtime/cdi_spec_dirs", Take("rund.cdi_spec_dirs", List)},
      {"crio/runtime/irqbalance_config_file",
       NotSupported("crisp leaves irqbalance alone: ban CPUs in its own configuration")},
      {"crio/runtime/irqbalance_config_restore_file",
       NotNeeded("crisp leaves irqbalance alone: there is nothing to restore")},
      {"crio/runtime/rdt_config_file",
       NotSupported("crisp makes no RDT classes: pods may name those that resctrl has")},
      {"crio/runtime/cgroup_manager", Take("rund.cgroup_driver", Text)},
      {"crio/runtime/default_capabilities", Take("rund.default_capabilities", Capabilities)},
      {"crio/runtime/add_inheritable_capabilities",
       NotSupported("set file capabilities on the programs of containers that are not root")},
      {"crio/runtime/default_sysctls", Take("rund.default_sysctls", Sysctls)},
      {"crio/runtime/allowed_devices", Take("rund.allowed_devices", List)},
      {"crio/runtime/additional_devices", Take("rund.additional_devices", List)},
      {"crio/runtime/device_ownership_from_security_context",
       Take("rund.device_ownership_from_security_context", Bool)},
      {"crio/runtime/hooks_dir", Take("rund.hooks_dirs", List)},
      {"crio/runtime/default_mounts",
       NotSupported("name a file with \"mounts\" in rund.runtimes.<name>.base_spec")},
      {"crio/runtime/default_mounts_file",
       NotSupported("name a file with \"mounts\" in rund.runtimes.<name>.base_spec")},
      {"crio/runtime/pids_limit",
       NotSupported("the kubelet's podPidsLimit holds for a pod as a whole")},
      {"crio/runtime/log_filter", NotSupported("journalctl --grep finds lines afterwards")},
      {"crio/runtime/log_level", CrioLogLevel},
      {"crio/runtime/log_size_max", CrioLogSizeMax},
      {"crio/runtime/log_to_journald", Take("rund.log_journald", Bool)},
      {"crio/runtime/container_exits_dir", NotNeeded("exit codes lie below crisp's state_root")},
      {"crio/runtime/container_attach_socket_dir", NotNeeded("they lie below crisp's run_root")},
      {"crio/runtime/bind_mount_prefix",
       NotSupported("run crisp on the node itself, not in a container")},
      {"crio/runtime/read_only", NotSupported("set readOnlyRootFilesystem in the pods")},
      {"crio/runtime/uid_mappings", NotSupported("set hostUsers: false in the pods")},
      {"crio/runtime/gid_mappings", NotSupported("set hostUsers: false in the pods")},
      {"crio/runtime/minimum_mappable_uid", NotSupported("the kubelet gives out the ranges")},
      {"crio/runtime/minimum_mappable_gid", NotSupported("the kubelet gives out the ranges")},
      {"crio/runtime/ctr_stop_timeout",
       NotNeeded("the pod's terminationGracePeriodSeconds counts")},
      {"crio/runtime/drop_infra_ctr", NotNeeded("there is no infra container")},
      {"crio/runtime/manage_ns_lifecycle", NotNeeded("crisp always pins the namespaces itself")},
      {"crio/runtime/infra_ctr_cpuset", NotNeeded("there is no infra container")},
      {"crio/runtime/shared_cpuset", NotSupported("use the kubelet's CPU manager policy options")},
      {"crio/runtime/namespaces_dir", NotNeeded("namespaces are pinned below crisp's run_root")},
      {"crio/runtime/pinns_path", NotNeeded("netd and rund pin the namespaces themselves")},
      {"crio/runtime/absent_mount_sources_to_reject",
       Take("rund.absent_mount_sources_to_reject", List)},
      {"crio/runtime/enable_criu_support", Take("rund.restore_checkpoints", Bool)},
      {"crio/runtime/enable_pod_events", NotNeeded("events are always there for those who ask")},
      {"crio/runtime/hostnetwork_disable_selinux",
       NotSupported("set seLinuxOptions in pods of the host's network that need another label")},
      {"crio/runtime/disable_hostport_mapping", CrioHostPorts},
      {"crio/runtime/timezone",
       NotSupported("set TZ in rund.default_env, for images that have time zones")},
      {"crio/runtime/separate_pull_cgroup",
       NotNeeded("pulls run in imaged, a unit with a cgroup of its own")},

      // [crio.runtime.runtimes.<name>]
      {"crio/runtime/runtimes/*/runtime_type", CrioRuntimeType},
      {"crio/runtime/runtimes/*/runtime_path", CrioRuntimePath},
      {"crio/runtime/runtimes/*/runtime_root", OfHandler(Take("rund.runtimes.*.root", Text))},
      {"crio/runtime/runtimes/*/inherit_default_runtime", CrioInherit},
      {"crio/runtime/runtimes/*/runtime_config_path", NotSupported("is for runtime_type vm")},
      {"crio/runtime/runtimes/*/privileged_without_host_devices",
       OfHandler(Take("rund.runtimes.*.privileged_without_host_devices", Bool))},
      {"crio/runtime/runtimes/*/allowed_annotations",
       OfHandler(Change("rund.runtimes.*.allowed_annotations", List,
                        "the OCI runtime gets to see these annotations and no others; of CRI-O's "
                        "own (crio.io) those count here that crisp.yaml(5) lists"))},
      {"crio/runtime/runtimes/*/monitor_path", CrioMonitorPath},
      {"crio/runtime/runtimes/*/monitor_cgroup", NotNeeded("monitors stay in the unit of rund")},
      {"crio/runtime/runtimes/*/monitor_exec_cgroup",
       NotNeeded("monitors stay in the unit of rund")},
      {"crio/runtime/runtimes/*/monitor_env", OfHandler(Take("rund.runtimes.*.monitor_env", List))},
      {"crio/runtime/runtimes/*/platform_runtime_paths/*",
       NotSupported("a handler has one program: make a handler for each")},
      {"crio/runtime/runtimes/*/runtime_pull_image", NotSupported("imaged pulls all images")},
      {"crio/runtime/runtimes/*/container_min_memory",
       NotNeeded("crisp asks for no minimum: a limit that is too low fails in the runtime")},
      {"crio/runtime/runtimes/*/no_sync_log", NotNeeded("logs are not synced one by one")},
      {"crio/runtime/runtimes/*/default_annotations/*",
       NotSupported("name a file with \"annotations\" in the handler's base_spec")},
      {"crio/runtime/runtimes/*/stream_websockets",
       NotNeeded("WebSocket and SPDY are both spoken")},
      {"crio/runtime/runtimes/*/exec_cpu_affinity",
       NotSupported("execs run on the CPUs of their containers")},
      {"crio/runtime/runtimes/*/seccomp_profile",
       NotSupported("rund.seccomp_profile holds for all handlers; a pod may name a Localhost one")},
      {"crio/runtime/runtimes/*/container_create_timeout", CrioCreateTimeout},

      // [crio.runtime.workloads.<name>]
      {"crio/runtime/workloads/*/**",
       NotSupported("crisp has no workloads: use RuntimeClasses, and the kubelet's CPU manager")},

      // [crio.checkpoint_restore]
      {"crio/checkpoint_restore/container_level_enabled",
       [](const Case& one) {
         return one.option.value.text == "none"
                    ? NotNeededHere("is off, as it is in crisp")
                    : NotSupportedHere("crisp does not checkpoint containers");
       }},

      // [crio.image]
      {"crio/image/default_transport", CrioTransport},
      {"crio/image/global_auth_file", CrioAuthFile},
      {"crio/image/namespaced_auth_dir",
       NotSupported("credentials for a namespace are the pods' imagePullSecrets")},
      {"crio/image/pause_image", NotNeeded("pods have no pause container")},
      {"crio/image/pause_image_auth_file", NotNeeded("pods have no pause container")},
      {"crio/image/pause_command", NotNeeded("pods have no pause container")},
      {"crio/image/pinned_images", Take("imaged.pinned_images", List)},
      {"crio/image/signature_policy", Take("imaged.policy", Text)},
      {"crio/image/signature_policy_dir",
       NotSupported("one policy holds for all namespaces: imaged.policy, whose scopes are images")},
      {"crio/image/insecure_registries",
       NotNeeded("CRI-O itself no longer looks at it: insecure = true in registries.conf, which "
                 "imaged reads, or imaged.insecure_registries")},
      {"crio/image/registries", NotNeeded("imaged reads unqualified-search-registries in "
                                          "registries.conf")},
      {"crio/image/image_volumes", CrioImageVolumes},
      {"crio/image/big_files_temporary_dir", NotNeeded("layers are unpacked as they come")},
      {"crio/image/separate_pull_cgroup",
       NotNeeded("pulls run in imaged, a unit with a cgroup of its own")},
      {"crio/image/auto_reload_registries", NotNeeded("registries.conf counts from the next pull")},
      {"crio/image/pull_progress_timeout", CrioPullTimeout},
      {"crio/image/oci_artifact_mount_support", NotSupported("crisp has no OCI artifacts")},
      {"crio/image/short_name_mode",
       NotNeeded("imaged reads short-name-mode in registries.conf: set it there if it differs")},

      // [crio.network]
      {"crio/network/cni_default_network", Take("netd.default_network", Text)},
      {"crio/network/network_dir", Take("netd.conf_dirs", ListOfOne)},
      {"crio/network/plugin_dir", CrioPluginDir},
      {"crio/network/plugin_dirs", CrioPluginDirs},
      {"crio/network/cni_status_grace_period", CrioStatusGrace},

      // [crio.metrics]
      {"crio/metrics/enable_metrics", CrioMetrics},
      {"crio/metrics/metrics_host", CrioIfMetrics},
      {"crio/metrics/metrics_port", CrioIfMetrics},
      {"crio/metrics/metrics_collectors",
       NotNeeded("all metrics are always there, under crisp's names; let Prometheus drop some")},
      {"crio/metrics/metrics_socket",
       NotSupported("each daemon has one, <run_root>/<service>/<instance>.metrics.sock")},
      {"crio/metrics/metrics_cert", NotSupported("put a proxy that speaks TLS before "
                                                 "crid.metrics_address")},
      {"crio/metrics/metrics_key", NotSupported("put a proxy that speaks TLS before "
                                                "crid.metrics_address")},

      // [crio.tracing]
      {"crio/tracing/enable_tracing", NotNeeded("an empty tracing.endpoint turns traces off")},
      {"crio/tracing/tracing_endpoint", CrioTracingEndpoint},
      {"crio/tracing/tracing_sampling_rate_per_million",
       Take("tracing.sampling_per_million", Number)},

      // [crio.stats]
      {"crio/stats/stats_collection_period", NotNeeded("stats are read when they are asked for")},
      {"crio/stats/collection_period", NotNeeded("stats are read when they are asked for")},
      {"crio/stats/included_pod_metrics",
       NotSupported("let the kubelet's cAdvisor give metrics of pods")},

      // [crio.nri]
      {"crio/nri/enable_nri",
       NotSupported("crisp runs no NRI plugins; OCI hooks and CDI are there")},
      {"crio/nri/**", NotNeeded("crisp runs no NRI plugins")},
  };
  return kRules;
}

const std::vector<Default>& CrioDefaults() {
  static const std::vector<Default> kDefaults = {
      {"crio/runtime/default_runtime", TomlOf("crun")},
      {"crio/runtime/cgroup_manager", TomlOf("systemd")},
      {"crio/runtime/selinux", TomlBool(false)},
      {"crio/runtime/disable_hostport_mapping", TomlBool(false)},
      {"crio/runtime/runtimes/*/runtime_path", TomlOf("")},
  };
  return kDefaults;
}

}  // namespace crisp::ctl::convert
