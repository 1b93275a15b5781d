#include "libs/settings/schema.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "libs/base/try.h"
#include "libs/config/schema.h"
#include "libs/os/limit_names.h"
#include "libs/settings/settings.h"

namespace crisp::settings {
namespace {

using config::Cost;
using config::Schema;

constexpr std::int64_t kHour = 3600;

Status NotEmpty(const std::string& text) {
  return text.empty() ? InvalidArgument("an empty entry") : Status::Ok();
}

/// "host:port"
Status CheckAddress(const std::string& address) {
  constexpr unsigned kMaxPort = 65535;
  const auto colon = address.rfind(':');
  const std::string_view port =
      colon == address.npos ? "" : std::string_view(address).substr(colon + 1);
  unsigned number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (colon == 0 || error != std::errc() || end != port.data() + port.size()) {
    return InvalidArgument("'{}' is not host:port", address);
  }
  if (number > kMaxPort) return InvalidArgument("'{}' has a port above {}", address, kMaxPort);
  return Status::Ok();
}

Status CheckAddressOrNone(const std::string& address) {
  return address.empty() ? Status::Ok() : CheckAddress(address);
}

Status CheckUlimit(const std::string& text) { return os::ParseUlimit(text).status(); }

/// Others contradict `userxattr`, `volatile` and `index=off`, or mean layers.
Status CheckOverlayOption(const std::string& option) {
  constexpr std::array<std::string_view, 13> kOptions = {
      "nodev",       "nosuid",    "noexec",           "xino=on",
      "xino=off",    "xino=auto", "uuid=on",          "uuid=off",
      "uuid=null",   "uuid=auto", "redirect_dir=off", "redirect_dir=nofollow",
      "metacopy=off"};
  if (std::find(kOptions.begin(), kOptions.end(), option) != kOptions.end()) return Status::Ok();
  return InvalidArgument("'{}' is no option that may be added ({})", option,
                         fmt::join(kOptions, ", "));
}

/// Words that configurations of older runtimes have get an answer of their own.
Status CheckDriver(const std::string& driver) {
  if (driver == "overlay" || driver == "erofs" || driver == "btrfs" || driver == "vfs")
    return Status::Ok();
  if (driver == "overlay2") return InvalidArgument("'overlay2' is called overlay here");
  if (driver == "aufs")
    return InvalidArgument("'aufs' is in no kernel any more: overlay has replaced it");
  if (driver == "devicemapper")
    return InvalidArgument("'devicemapper' is given up everywhere: overlay has replaced it");
  if (driver == "zfs") return InvalidArgument("'zfs' is not supported: use overlay");
  return InvalidArgument("'{}' is no driver (overlay, erofs, btrfs, vfs)", driver);
}

void AddLog(Schema& schema, Log& log) {
  schema.Section("log", "What the daemons write to standard error.")
      .OneOf("log.level", &log.level, {"trace", "debug", "info", "warn", "error", "fatal"},
             {.text = "Lines below this level are left out: trace (each call and each program that "
                      "is run, too), debug, info, warn, error or fatal.",
              .cost = Cost::kLive})
      .OneOf("log.format", &log.format, {"text", "json"}, {.text = "text or json."});
}

Status CheckEndpoint(const std::string& endpoint) {
  constexpr std::string_view kUnix = "unix:";
  if (endpoint.starts_with(kUnix)) return config::CheckPath(endpoint.substr(kUnix.size()));
  return CheckAddressOrNone(endpoint);
}

void AddTracing(Schema& schema, Tracing& tracing) {
  schema
      .Section("tracing",
               "Traces of CRI calls through the daemons, for a collector of OpenTelemetry.")
      .Text(
          "tracing.endpoint", &tracing.endpoint,
          {.text = "host:port of the collector, or unix:/path of its socket, where OTLP is spoken "
                   "over gRPC without TLS: one on this node. Empty: no traces."},
          CheckEndpoint)
      .Int("tracing.sampling_per_million", &tracing.sampling_per_million, 0, 1'000'000,
           {.text =
                "Of a million calls that come without a trace of their caller's so many begin "
                "one. A call with one (the kubelet's, where it traces) goes by what that says."});
}

void AddCrid(Schema& schema, Crid& crid) {
  schema.Section("crid", "The front: the CRI socket.")
      .Path("crid.socket", &crid.socket, true,
            {.text = "Where kubelet and crictl connect. Empty: <run_root>/crisp.sock."})
      .Text("crid.metrics_address", &crid.metrics_address,
            {.text = "host:port of /metrics, which also hands through those of the other daemons "
                     "(/metrics/<service>/<instance>). Empty: no TCP listener."},
            CheckAddressOrNone)
      .Bool("crid.confine", &crid.confine,
            {.text = "Give up all capabilities, and by seccomp and Landlock all system calls and "
                     "paths that the front has no use for: no programs, no files but its sockets."})
      .Seconds("crid.peer_wait_seconds", &crid.peer_wait, 0, 60,
               {.text = "How long a call waits for a daemon that is restarting before it fails."})
      .Seconds("crid.reconcile_seconds", &crid.reconcile, 1, kHour,
               {.text = "How often imaged and netd are told which owners live."})
      .Seconds(
          "crid.run_pod_timeout_seconds", &crid.run_pod_timeout, 1, kHour,
          {.text = "Deadline of the work of one RunPodSandbox. The kubelet's retries join it."})
      .Seconds("crid.create_timeout_seconds", &crid.create_timeout, 1, kHour,
               {.text = "Deadline of the work of one CreateContainer."});
}

void AddImaged(Schema& schema, Imaged& imaged) {
  schema.Section("imaged", "Images: registries, layers, snapshots.")
      .Text(
          "imaged.driver", &imaged.driver,
          {.text = "How containers get their root file system: overlay; erofs (the same, but each "
                   "layer that is pulled becomes one file, an EROFS image; Linux 6.15 and later); "
                   "btrfs (a snapshot of one copy of the image; state_root lies on btrfs); or vfs "
                   "(a full copy for each container), which is also taken where the kernel has "
                   "no overlayfs. Layers that are there keep their form, and are used as they are.",
           .cost = Cost::kNewPods},
          CheckDriver)
      .List("imaged.overlay_options", &imaged.overlay_options,
            {.text = "Options of overlayfs for containers and image volumes, beside those that "
                     "imaged takes itself: nodev, nosuid, noexec, xino=on, xino=off, xino=auto, "
                     "uuid=on, uuid=off, uuid=null, uuid=auto, redirect_dir=off, "
                     "redirect_dir=nofollow, metacopy=off.",
             .cost = Cost::kNewPods},
            CheckOverlayOption)
      .Path("imaged.image_root", &imaged.image_root, true,
            {.text =
                 "Where layers and the catalogue lie, for a file system of their own; containers' "
                 "own files stay below state_root. Empty: <state_root>/imaged."})
      .Int("imaged.parallel_layers", &imaged.parallel_layers, 1, 64,
           {.text = "Layers of one pull that are fetched and unpacked at the same time."})
      .Int("imaged.parallel_pulls", &imaged.parallel_pulls, 1, 64,
           {.text = "Pulls at the same time; more wait."})
      .Int("imaged.parallel_unpackers", &imaged.parallel_unpackers, 1, 256,
           {.text = "Layers that are fetched and unpacked at the same time, over all pulls. Each "
                    "keeps about two cores busy and takes up to 16 MiB of memory."})
      .Int("imaged.parallel_downloads", &imaged.parallel_downloads, 1, 256,
           {.text = "Connections for layers at the same time, over all pulls."})
      .Int("imaged.layer_connections", &imaged.layer_connections, 1, 16,
           {.text =
                "Connections for one layer of 64 MiB or more at most, where the registry answers "
                "ranges of it: one, and more as long as they bring more. Each takes 4 MiB of "
                "memory more. 1: never more than one."})
      .Bool("imaged.reuse_files", &imaged.reuse_files,
            {.text = "Of a layer in the form of zstd:chunked only those files are fetched that no "
                     "other such layer here has. Its registry can tell from that which files are "
                     "here. false: each layer comes whole."})
      .List("imaged.insecure_registries", &imaged.insecure_registries,
            {.text = "host:port of registries that may speak plain HTTP or show a certificate that "
                     "nobody vouches for. Loopback ones may always speak plain HTTP."},
            NotEmpty)
      .Path("imaged.registries_conf", &imaged.registries_conf, true,
            {.text = "The container tools' registries.conf, with its .d directory: mirrors, "
                     "rewrites, blocked and insecure registries, short names. It may be absent; "
                     "changes count from the next pull on. Empty: none is read."})
      .Path("imaged.short_name_aliases", &imaged.short_name_aliases, true,
            {.text = "Short names that podman and others have remembered; an alias in "
                     "registries_conf or its .d comes before. It may be absent. Empty: none is "
                     "read."})
      .List("imaged.certs_dirs", &imaged.certs_dirs,
            {.text = "Where <host:port>/ may have *.crt (authorities), *.cert and *.key (client "
                     "certificates); the first that has the host counts."},
            config::CheckPath)
      .Path("imaged.hosts_dir", &imaged.hosts_dir, true,
            {.text = "containerd's <host>/hosts.toml, for registries that registries.conf does "
                     "not speak of. Empty: none is read."})
      .List("imaged.auth_files", &imaged.auth_files,
            {.text = "The node's own credentials (auth.json, Docker's config.json), for pulls that "
                     "bring none that fit: the first that knows the registry counts. Each may be "
                     "absent."},
            config::CheckPath)
      .List("imaged.credential_helper_dirs", &imaged.credential_helper_dirs,
            {.text = "Where the docker-credential-* programs are that those files name."},
            config::CheckPath)
      .List("imaged.pinned_images", &imaged.pinned_images,
            {.text = "Images that the kubelet's garbage collection must leave alone. A * "
                     "stands for any characters."},
            NotEmpty)
      .Seconds("imaged.orphan_grace_seconds", &imaged.orphan_grace, 1, kHour,
               {.text = "Age from which a snapshot without an owner is freed."})
      .Seconds("imaged.stall_timeout_seconds", &imaged.stall_timeout, 1, kHour,
               {.text = "A transfer that brings no byte for this long is broken off and resumed."})
      .Size("imaged.min_rate", &imaged.min_rate, Bytes(0), GiB(1),
            {.text = "A transfer that brings less than so many bytes a second, over as long as "
                     "stall_timeout_seconds of waiting, is treated like a broken one. 0: none is "
                     "too slow."})
      .Size("imaged.max_rate", &imaged.max_rate, Bytes(0), GiB(64),
            {.text = "The layers of all pulls together come no faster than so many bytes a second. "
                     "0: as fast as they can."})
      .Size("imaged.max_pull_rate", &imaged.max_pull_rate, Bytes(0), GiB(64),
            {.text = "The layers of one pull come no faster than so many bytes a second. 0: as "
                     "fast as they can. A layer that several pulls want is fetched at the rate of "
                     "the one that came first."})
      .Seconds("imaged.pull_timeout_seconds", &imaged.pull_timeout, 1, 24 * kHour,
               {.text = "Deadline of a whole pull."})
      .Size("imaged.max_layer_size", &imaged.max_layer_size, MiB(1), GiB(4096),
            {.text = "The largest layer, unpacked."})
      .Int("imaged.max_expansion", &imaged.max_expansion, 0, 1'000'000,
           {.text = "A layer that unpacks to more than 100 MiB may grow to so many times the size "
                    "that it has in the registry. 0: to any."})
      .Size("imaged.max_manifest_size", &imaged.max_manifest_size, KiB(64), MiB(64),
            {.text = "The largest manifest, index or image configuration."})
      .Int("imaged.max_layers", &imaged.max_layers, 1, 500,
           {.text = "The most layers of an image."})
      .Seconds(
          "imaged.verify_seconds", &imaged.verify, 0, 24 * kHour,
          {.text = "How often, in quiet times, one layer is read again to see that it is what it "
                   "was. 0: never."})
      .Path("imaged.policy", &imaged.policy, false,
            {.text = "Which images are trusted, by whose signature (containers-policy.json), asked "
                     "when an image is pulled and again when a container is made of it. Read anew "
                     "each time. This file may be absent: then every image is accepted, with a "
                     "warning; any other must be there."})
      .Path("imaged.registries_d", &imaged.registries_d, false,
            {.text = "Where signatures lie (containers-registries.d). Attachments of cosign are "
                     "looked for in the image's own repository."})
      .Int("imaged.max_files", &imaged.max_files, 1000, 1'000'000'000,
           {.text = "The most files and directories of one layer."})
      .Bool(
          "imaged.confine", &imaged.confine,
          {.text = "Give up, before a byte from outside is read, all capabilities, system calls "
                   "and paths that pulling and unpacking do not need. Device nodes of images other "
                   "than null, zero, full, random, urandom, tty, console and ptmx are then left "
                   "out."});
}

void AddNetd(Schema& schema, Netd& netd) {
  schema.Section("netd", "Networks: namespaces and CNI.")
      .List("netd.conf_dirs", &netd.conf_dirs,
            {.text = "CNI configuration (*.conflist, *.conf, *.json), read again when it changes. "
                     "The first directory that holds a usable network wins."},
            config::CheckPath)
      .List("netd.bin_dirs", &netd.bin_dirs,
            {.text = "Where CNI plugins are looked for, in order."}, config::CheckPath)
      .Path("netd.cache_dir", &netd.cache_dir, false,
            {.text = "Results of the plugins go to <cache_dir>/results as libcni writes them, for "
                     "other tools to find. crisp itself needs none of them.",
             .cost = Cost::kNewPods})
      .Text("netd.default_network", &netd.default_network,
            {.text = "Name of the network that pods get. Empty: the first file's by name.",
             .cost = Cost::kNewPods})
      .Seconds("netd.attach_timeout_seconds", &netd.attach_timeout, 1, kHour,
               {.text = "Deadline of all ADDs of a pod together."})
      .Seconds("netd.detach_timeout_seconds", &netd.detach_timeout, 1, kHour,
               {.text = "Deadline of all DELs of a pod together."})
      .Seconds("netd.orphan_grace_seconds", &netd.orphan_grace, 1, kHour,
               {.text = "Age from which an attachment without a pod is taken down."})
      .Seconds(
          "netd.network_wait_seconds", &netd.network_wait, 0, kHour,
          {.text = "How long a new pod waits for a network that is not ready before it fails."})
      .Seconds("netd.status_interval_seconds", &netd.status_interval, 1, kHour,
               {.text = "How often the network is looked at while nothing changes: its "
                        "configuration, its programs, STATUS of plugins that know CNI 1.1."})
      .Seconds("netd.status_grace_seconds", &netd.status_grace, 0, kHour,
               {.text = "How long a network that was ready and no longer is still counts as ready, "
                        "so that the update of a CNI DaemonSet does not make the node NotReady."})
      .Seconds("netd.gc_interval_seconds", &netd.gc_interval, 1, 24 * kHour,
               {.text = "How often plugins that know CNI 1.1 are told (GC) which attachments are "
                        "alive; also once after the start."})
      .OneOf(
          "netd.hostports", &netd.hostports, {"plugin", "builtin"},
          {.text = "Who maps host ports to pods: plugin (portmap in the network's configuration) "
                   "or builtin (netd itself, with nftables; plugins are told of no ports).",
           .cost = Cost::kNewPods})
      .Path("netd.nft", &netd.nft, false, {.text = "The nft program, for hostports: builtin."});
}

Status CheckAssignment(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == 0 || equals == text.npos) return InvalidArgument("'{}' is not name=value", text);
  return Status::Ok();
}

Status CheckUmask(const std::string& text) {
  return text.empty() ? Status::Ok() : os::ParseUmask(text).status();
}

/// "host[:container[:permissions]]"
Status CheckDevice(const std::string& text) {
  const std::size_t first = text.find(':');
  CRISP_TRY(config::CheckPath(text.substr(0, first)));
  if (first == text.npos) return Status::Ok();
  const std::size_t second = text.find(':', first + 1);
  CRISP_TRY(config::CheckPath(text.substr(first + 1, second - first - 1)));
  if (second == text.npos) return Status::Ok();
  const std::string permissions = text.substr(second + 1);
  if (permissions.empty() || permissions.find_first_not_of("rwm") != permissions.npos) {
    return InvalidArgument("'{}': '{}' are no permissions of a device (some of rwm)", text,
                           permissions);
  }
  return Status::Ok();
}

void AddRund(Schema& schema, Rund& rund) {
  schema.Section("rund", "Pods and containers.")
      .Path("rund.conmon", &rund.conmon, false,
            {.text = "The monitor of each container.", .cost = Cost::kNewPods})
      .Path(
          "rund.pause", &rund.pause, true,
          {.text = "The process of pods with a shared PID namespace. Empty: crisp-pause beside the "
                   "rund program, else /usr/libexec/crisp/crisp-pause.",
           .cost = Cost::kNewPods})
      .Text("rund.default_runtime", &rund.default_runtime,
            {.text = "The runtime handler of pods that name none: one of runtimes.",
             .cost = Cost::kLive})
      .Map<Runtime>(
          "rund.runtimes", &rund.runtimes,
          {.text = "OCI runtimes by handler name. A drop-in adds to them; a name without a value "
                   "(crun: null) is taken away.",
           .cost = Cost::kLive},
          [](Schema& keys, Runtime& runtime) {
            keys.Path("path", &runtime.path, false, {.text = "The program.", .cost = Cost::kLive})
                .OneOf("type", &runtime.type, {"oci", "vm"},
                       {.text = "How it is spoken to: oci, the command line of runc; or vm, "
                                "containerd's shim v2, which crisp does not speak yet: such a "
                                "handler is not offered, and pods that name it are told so.",
                        .cost = Cost::kLive})
                .Path("root", &runtime.root, true,
                      {.text = "Its state. Empty: <run_root>/rund/<instance>/runtimes/<name>.",
                       .cost = Cost::kNewPods})
                .List("args", &runtime.args,
                      {.text = "Options that go before each of its commands.", .cost = Cost::kLive},
                      NotEmpty)
                .List("monitor_env", &runtime.monitor_env,
                      {.text = "Environment of the monitor of its containers, as NAME=value.",
                       .cost = Cost::kLive},
                      CheckAssignment)
                .List("allowed_annotations", &runtime.allowed_annotations,
                      {.text = "Annotations of pods and containers that it gets to see, and that "
                               "crisp itself heeds (crisp.yaml(5) lists those): whole names or "
                               "beginnings of names.",
                       .cost = Cost::kLive},
                      NotEmpty)
                .Bool("privileged_without_host_devices", &runtime.privileged_without_host_devices,
                      {.text = "Privileged containers do not get all devices of the host.",
                       .cost = Cost::kLive})
                .Path("base_spec", &runtime.base_spec, true,
                      {.text = "What its containers get beside what pods ask for: a file with a "
                               "part of an OCI runtime spec (JSON). Empty: nothing.",
                       .cost = Cost::kLive});
          })
      .OneOf(
          "rund.cgroup_driver", &rund.cgroup_driver, {"cgroupfs", "systemd"},
          {.text =
               "Who makes cgroups: crisp itself (cgroupfs), or systemd as slices and scopes, "
               "where one cgroup v2 tree is systemd's. The kubelet's must be the same (it asks).",
           .cost = Cost::kNewPods})
      .List("rund.default_capabilities", &rund.default_capabilities,
            {.text = "What a container may do unless its spec adds or drops; with or without CAP_. "
                     "ALL: whatever rund may do.",
             .cost = Cost::kNewPods},
            os::CheckCapability)
      .List(
          "rund.default_ulimits", &rund.default_ulimits,
          {.text = "Limits of a container's processes, as name=soft:hard (nofile=1024:4096); -1 is "
                   "no limit.",
           .cost = Cost::kNewPods},
          CheckUlimit)
      .List("rund.default_env", &rund.default_env,
            {.text = "Environment of all containers, as NAME=value; images and pods override it.",
             .cost = Cost::kNewPods},
            CheckAssignment)
      .List("rund.default_sysctls", &rund.default_sysctls,
            {.text = "Sysctls of all pods that have the namespaces for them, as name=value; pods "
                     "override them. netd sets those of the network, before the plugins run.",
             .cost = Cost::kNewPods},
            CheckAssignment)
      .Text("rund.default_umask", &rund.default_umask,
            {.text = "File mode creation mask of containers, octal. Empty: the runtime's, 0022.",
             .cost = Cost::kNewPods},
            CheckUmask)
      .Path("rund.seccomp_profile", &rund.seccomp_profile, true,
            {.text = "The profile that RuntimeDefault means (JSON). Empty: the built-in one.",
             .cost = Cost::kNewPods})
      .Text("rund.apparmor_profile", &rund.apparmor_profile,
            {.text = "The AppArmor profile that RuntimeDefault means, where the kernel has "
                     "AppArmor. One of the file's name in /etc/apparmor.d is loaded at start.",
             .cost = Cost::kNewPods},
            NotEmpty)
      .Bool("rund.selinux", &rund.selinux,
            {.text = "Labels for containers and volumes, where the kernel has SELinux.",
             .cost = Cost::kNewPods})
      .List("rund.absent_mount_sources_to_reject", &rund.absent_mount_sources_to_reject,
            {.text = "Host paths that fail a mount when they are not there; others are made, as "
                     "directories.",
             .cost = Cost::kNewPods},
            config::CheckPath)
      .List("rund.additional_devices", &rund.additional_devices,
            {.text = "Devices of all containers, as host[:container[:permissions]]: /dev/fuse, "
                     "/dev/sda:/dev/disk:r.",
             .cost = Cost::kNewPods},
            CheckDevice)
      .List("rund.allowed_devices", &rund.allowed_devices,
            {.text = "Devices of the host that pods may ask for by annotation, where their runtime "
                     "handler's allowed_annotations have it: see crisp.yaml(5).",
             .cost = Cost::kNewPods},
            config::CheckPath)
      .Bool("rund.device_ownership_from_security_context",
            &rund.device_ownership_from_security_context,
            {.text = "Devices belong to the container's user and group rather than to those of "
                     "the node.",
             .cost = Cost::kNewPods})
      .List("rund.cdi_spec_dirs", &rund.cdi_spec_dirs,
            {.text = "Where CDI devices are described (*.json, *.yaml); later directories win. "
                     "Changes count at once.",
             .cost = Cost::kNewPods},
            config::CheckPath)
      .List("rund.hooks_dirs", &rund.hooks_dirs,
            {.text = "Where OCI hooks with their conditions are (*.json); later directories win. "
                     "Changes count at once.",
             .cost = Cost::kNewPods},
            config::CheckPath)
      .Path("rund.blockio_config_file", &rund.blockio_config_file, true,
            {.text = "Classes of block I/O that pods may ask for by annotation: the YAML that "
                     "CRI-O and containerd read, see crisp.yaml(5). Changes of the file count at "
                     "once. Empty: none.",
             .cost = Cost::kNewPods})
      .Seconds("rund.abandoned_grace_seconds", &rund.abandoned_grace, 1, kHour,
               {.text = "Age from which a pod or container that never came to be is removed."})
      .Seconds("rund.runtime_timeout_seconds", &rund.runtime_timeout, 1, kHour,
               {.text = "Deadline of one call of the OCI runtime."})
      .Text(
          "rund.streaming_address", &rund.streaming_address,
          {.text = "IP:port where exec, attach and port-forward are served, to the kubelet of this "
                   "node. Port 0: any. With several instances it must be 0."},
          CheckAddress)
      .Path("rund.streaming_tls_cert", &rund.streaming_tls_cert, true,
            {.text = "Certificate of that server with its chain (PEM); a file that is replaced is "
                     "taken within a minute. Empty: plain HTTP."})
      .Path("rund.streaming_tls_key", &rund.streaming_tls_key, true,
            {.text = "The key of streaming_tls_cert (PEM)."})
      .OneOf("rund.streaming_tls_min_version", &rund.streaming_tls_min_version, {"1.2", "1.3"},
             {.text = "The oldest TLS that is spoken: 1.2 or 1.3."})
      .Seconds("rund.streaming_idle_timeout_seconds", &rund.streaming_idle_timeout, 0, 24 * kHour,
               {.text = "A session in which no byte moves for so long is ended. 0: never."})
      .Size("rund.log_rate", &rund.log_rate, Bytes(0), kMaxLogRate,
            {.text = "A container's log grows by no more than so many bytes a second over time. "
                     "Pods may lower it for themselves by the annotation crisp.logs/rate. 0: as "
                     "fast as it comes.",
             .cost = Cost::kNewPods})
      .Size("rund.log_burst", &rund.log_burst, kMinLogBurst, kMaxLogBurst,
            {.text = "What a container that was quiet before may log at once.",
             .cost = Cost::kNewPods})
      .OneOf("rund.log_excess", &rund.log_excess, {"drop", "block"},
             {.text = "What becomes of lines that come faster: they are left out, with one line "
                      "for each gap (drop), or the container waits (block).",
              .cost = Cost::kNewPods})
      .Size("rund.max_log_size", &rund.max_log_size, Bytes(0), GiB(1024),
            {.text = "Size of a container's log at which it is started anew, without what was in "
                     "it (the kubelet rotates by itself). 0: no limit.",
             .cost = Cost::kNewPods})
      .Bool("rund.log_guarded", &rund.log_guarded,
            {.text = "The log of a container without limits, too, is written by crisp-log, so that "
                     "a full disk leaves whole lines in it and a line that says how many are "
                     "missing. One more small process for each container.",
             .cost = Cost::kNewPods})
      .Bool("rund.log_journald", &rund.log_journald,
            {.text = "What containers with a log file write goes to the journal as well, without "
                     "the limits above: the journal has its own.",
             .cost = Cost::kNewPods})
      .Bool("rund.restore_checkpoints", &rund.restore_checkpoints,
            {.text = "Containers may be made from checkpoints: from an archive on the node, or "
                     "from an image that holds one. Their processes come back with the identity, "
                     "the capabilities and the system-call filter that are written in it: whoever "
                     "may choose the image of a pod then may become root of the node."});
}

}  // namespace

Schema MakeSchema(Settings& settings) {
  Schema schema;
  AddLog(schema, settings.log);
  AddTracing(schema, settings.tracing);
  schema
      .Path("state_root", &settings.state_root, false,
            {.text = "What outlives a reboot: images, records. Moving it means moving the files."})
      .Path("run_root", &settings.run_root, false,
            {.text = "Sockets, bundles, namespaces: a file system that a reboot empties. Short: "
                     "sockets live there."});
  AddCrid(schema, settings.crid);
  AddImaged(schema, settings.imaged);
  AddNetd(schema, settings.netd);
  AddRund(schema, settings.rund);
  return schema;
}

}  // namespace crisp::settings
