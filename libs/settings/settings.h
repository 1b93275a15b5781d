#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/base/status.h"
#include "libs/base/units.h"

namespace crisp::settings {

inline constexpr std::string_view kDefaultPath = "/etc/crisp/crisp.yaml";

/// Of a container's log, wherever they are set: bytes, the rate in a second. A burst has room for
/// any line.
inline constexpr Bytes kMinLogRate = KiB(1);
inline constexpr Bytes kMaxLogRate = GiB(16);
inline constexpr Bytes kMinLogBurst = KiB(16);
inline constexpr Bytes kMaxLogBurst = GiB(16);

struct Log {
  std::string level = "info";
  std::string format = "text";
};

/// Of all daemons.
struct Tracing {
  std::string endpoint;  // empty = off
  std::int64_t sampling_per_million = 0;
};

struct Crid {
  std::string socket;  // empty = <run_root>/crisp.sock; Resolved() fills it
  std::string metrics_address = "127.0.0.1:9540";
  bool confine = true;
  std::chrono::seconds peer_wait{5};
  std::chrono::seconds reconcile{60};
  std::chrono::seconds run_pod_timeout{240};
  std::chrono::seconds create_timeout{240};
};

struct Imaged {
  std::string driver = "overlay";            // overlay | erofs | btrfs | vfs
  std::vector<std::string> overlay_options;  // beside those that imaged takes itself
  std::string image_root;                    // empty = <state_root>/imaged
  std::int64_t parallel_layers = 4;
  std::int64_t parallel_pulls = 8;
  std::int64_t parallel_unpackers = 8;
  std::int64_t parallel_downloads = 16;
  std::int64_t layer_connections = 4;
  bool reuse_files = true;
  std::vector<std::string> insecure_registries;
  std::string registries_conf = "/etc/containers/registries.conf";
  std::string short_name_aliases = "/var/cache/containers/short-name-aliases.conf";
  std::vector<std::string> certs_dirs = {"/etc/containers/certs.d", "/etc/docker/certs.d"};
  std::string hosts_dir = "/etc/containerd/certs.d";
  std::vector<std::string> auth_files = {"/etc/crisp/auth.json", "/run/containers/0/auth.json"};
  std::vector<std::string> credential_helper_dirs = {"/usr/local/bin", "/usr/bin"};
  std::vector<std::string> pinned_images;
  std::chrono::seconds orphan_grace{120};
  std::chrono::seconds stall_timeout{60};
  Bytes min_rate = KiB(4);  // a second
  Bytes max_rate{0};        // a second
  Bytes max_pull_rate{0};   // a second
  std::chrono::seconds pull_timeout{3600};
  Bytes max_layer_size = GiB(64);  // unpacked
  std::int64_t max_expansion = 200;
  Bytes max_manifest_size = MiB(4);
  std::int64_t max_layers = 127;
  std::int64_t max_files = 4'000'000;
  std::chrono::seconds verify{3600};
  std::string policy = "/etc/containers/policy.json";
  std::string registries_d = "/etc/containers/registries.d";
  bool confine = true;
};

struct Netd {
  std::vector<std::string> conf_dirs = {"/etc/cni/net.d"};
  std::vector<std::string> bin_dirs = {"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"};
  std::string cache_dir = "/var/lib/cni";
  std::string default_network;
  std::chrono::seconds attach_timeout{120};
  std::chrono::seconds detach_timeout{60};
  std::chrono::seconds orphan_grace{120};
  std::chrono::seconds network_wait{15};
  std::chrono::seconds status_interval{10};
  std::chrono::seconds status_grace{60};
  std::chrono::seconds gc_interval{3600};
  std::string hostports = "plugin";  // plugin | builtin
  std::string nft = "/usr/sbin/nft";
};

struct Runtime {
  std::string path;
  std::string
      root;  // empty = <run_root>/rund/<instance>/runtimes/<name>: see Settings::RuntimeRoot
  std::vector<std::string> args = {};                 // before each of its commands
  std::vector<std::string> monitor_env = {};          // "NAME=value", of its monitors
  std::vector<std::string> allowed_annotations = {};  // prefixes; handed on to it
  bool privileged_without_host_devices = false;
  std::string base_spec = {};  // a file; empty = none
  std::string type = "oci";    // oci | vm
};

struct Rund {
  std::string conmon = "/usr/bin/conmon";
  std::string
      pause;  // empty = crisp-pause beside the rund binary, else /usr/libexec/crisp/crisp-pause
  std::string default_runtime = "runc";
  std::map<std::string, Runtime> runtimes = {{"crun", {"/usr/bin/crun", ""}},
                                             {"runc", {"/usr/bin/runc", ""}}};
  std::string cgroup_driver = "cgroupfs";  // cgroupfs | systemd
  std::vector<std::string> default_capabilities = {"CHOWN",   "DAC_OVERRIDE",     "FSETID",
                                                   "FOWNER",  "SETGID",           "SETUID",
                                                   "SETPCAP", "NET_BIND_SERVICE", "KILL"};
  std::vector<std::string> default_ulimits;  // "nofile=1024:2048"
  std::vector<std::string> default_env;      // "NAME=value"
  std::vector<std::string> default_sysctls;  // "net.core.somaxconn=1024"
  std::string default_umask;                 // octal; empty = the runtime's 0022
  std::string seccomp_profile;               // empty = built in
  std::string apparmor_profile = "crisp-default";
  bool selinux = true;  // where the kernel has it
  std::vector<std::string> absent_mount_sources_to_reject = {"/etc/hostname"};
  std::vector<std::string> additional_devices;  // "/dev/fuse", "/dev/x:/dev/y:rw"
  std::vector<std::string> allowed_devices = {"/dev/fuse", "/dev/net/tun"};  // by annotation
  bool device_ownership_from_security_context = false;
  std::vector<std::string> cdi_spec_dirs = {"/etc/cdi", "/var/run/cdi"};
  std::vector<std::string> hooks_dirs = {"/usr/share/containers/oci/hooks.d",
                                         "/etc/containers/oci/hooks.d"};
  std::string blockio_config_file;  // empty = none
  std::chrono::seconds abandoned_grace{120};
  std::chrono::seconds runtime_timeout{120};
  // Of exec, attach and port-forward.
  std::string streaming_address = "127.0.0.1:0";
  std::string streaming_tls_cert;  // empty (with the key) = plain HTTP
  std::string streaming_tls_key;
  std::string streaming_tls_min_version = "1.2";
  std::chrono::seconds streaming_idle_timeout{4 * 3600};  // 0 = never
  // Of containers' logs.
  Bytes log_rate{0};  // a second; 0 = no limit
  Bytes log_burst = MiB(1);
  std::string log_excess = "drop";  // drop | block
  Bytes max_log_size{0};            // of the file, before it is started anew; 0 = no limit
  bool log_guarded = false;         // crisp-log writes those without limits, too
  bool log_journald = false;
  bool restore_checkpoints = false;
};

/// The whole file. Defaults are the values of a fresh object.
struct Settings {
  Log log;
  Tracing tracing;
  std::string state_root = "/var/lib/crisp";
  std::string run_root = "/run/crisp";
  Crid crid;
  Imaged imaged;
  Netd netd;
  Rund rund;

  /// What no single key can know: paths, names that must exist, values that exclude each other.
  /// kInvalidArgument names the key.
  Status Validate() const;
  /// The same with the empty paths that follow from the roots filled in. Load answers this.
  Settings Resolved() const;

  /// <run_root>/<service>/<instance>.sock
  std::string Socket(std::string_view service, std::string_view instance) const;
  /// <run_root>/<service>/<instance>.metrics.sock
  std::string MetricsSocket(std::string_view service, std::string_view instance) const;
  /// The state root of an OCI runtime (its `root`, or the default below run_root). kNotFound for an
  /// unknown name.
  Result<std::string> RuntimeRoot(const std::string& name, std::string_view instance) const;
};

/// Reads `path` and `<path>.d/*.yaml`, validates, resolves. The default path may be absent (then
/// the defaults hold); any other must exist. kInvalidArgument: "file:line: key: what".
Result<Settings> Load(const std::string& path);
/// Load as it would be if `<path>.d/<name>` held `text`.
Result<Settings> LoadWith(const std::string& path, const std::string& name,
                          const std::string& text);
/// `<path>.d/*.yaml` alone, over the defaults, where `path` may be absent; else as Load.
Result<Settings> LoadDropIns(const std::string& path);
/// One document over the defaults, validated and resolved as Load does it. `name` is for errors.
Result<Settings> Parse(std::string_view yaml, const std::string& name);
/// Whether the keys of a part of a file are known and each value fits its key; what only holds for
/// the whole is not asked.
Status CheckPart(std::string_view yaml, const std::string& name);

/// A key whose value is not the default.
struct Difference {
  std::vector<std::string> path;  // {"rund", "runtimes", "kata", "path"}
  std::string value;              // as YAML; "null": the entry is taken away
  std::string initial;            // the default; empty: there is none

  std::string Key() const;  // "rund.runtimes.kata.path"
};
/// In the order of the file. A path that follows from a root by itself is no difference.
std::vector<Difference> Differences(const Settings& settings);

struct KeyFacts {
  std::vector<std::string> path;
  std::string cost;  // "reload (SIGHUP)"
};
/// Of "crid.socket", "rund.runtimes.kata.path" or (to take it away) "rund.runtimes.kata".
/// kInvalidArgument: there is no such key, with those that there are.
Result<KeyFacts> FindKey(const std::string& key);

/// The same, with what tells one state of the files from another, and where its keys are.
struct Loaded {
  Settings settings;
  std::string fingerprint;                                 // equal for equal files, in all daemons
  std::map<std::string, std::string, std::less<>> places;  // "file:line" of the keys in the files

  /// An error whose message begins with a key ("rund.conmon: ...") with the key's place before it;
  /// any other as it is.
  Status Located(Status error) const;
};
Result<Loaded> LoadFingerprinted(const std::string& path);

/// A key that has another value than before.
struct Change {
  std::string key;    // "log.level"; of a runtime that comes or goes: "rund.runtimes.kata"
  bool live = false;  // a reload is enough; else a restart
};
/// Those that `service` ("rund") has to do with, by name.
std::vector<Change> Changes(const Settings& before, const Settings& now, std::string_view service);
/// What a daemon that was started with `started` runs with after it has taken the live keys of
/// `now`.
Settings InForce(const Settings& started, const Settings& now);
/// The value of a key, as YAML; nothing: no such key, or an entry that is not there.
std::optional<std::string> ValueOf(const Settings& settings, const std::string& key);

/// The settings as YAML, each key with its text, unit and cost of change: `crispctl config` prints
/// it, and deploy/config/crisp.yaml is the one of the defaults.
std::string DumpCommented(const Settings& settings);
/// Without comments.
std::string Dump(const Settings& settings);
/// Dump for Parse, which then gives the same settings: entries that are in the defaults and not
/// here are null.
std::string DumpWhole(const Settings& settings);
/// The keys as Markdown, for the manual page crisp.yaml(5).
std::string Reference();

}  // namespace crisp::settings
