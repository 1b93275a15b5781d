#include "services/rund/core/pod_files.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"
#include "libs/os/namespaces.h"
#include "services/rund/core/status.h"
#include "services/rund/runtime/userns.h"
#include "services/rund/spec/namespaces.h"
#include "services/rund/spec/security.h"

namespace crisp::rund {
namespace {

namespace cri = runtime::v1;

constexpr std::size_t kMaxHostname = 64;  // of the kernel

const cri::NamespaceOption& Namespaces(const cri::PodSandboxConfig& config) {
  return config.linux().security_context().namespace_options();
}

Status CheckSysctls(const cri::PodSandboxConfig& config) {
  for (const auto& [name, value] : config.linux().sysctls()) {
    const SysctlKind kind = SysctlKindOf(name);
    if (kind == SysctlKind::kOther) {
      return InvalidArgument("linux.sysctls: '{}' belongs to the node, not to a pod", name);
    }
    if (kind == SysctlKind::kIpc && IsHostIpc(config)) {
      return InvalidArgument("linux.sysctls: '{}' would change the node: the pod has host IPC",
                             name);
    }
    if ((kind == SysctlKind::kNet || kind == SysctlKind::kUts) && IsHostNetwork(config)) {
      return InvalidArgument("linux.sysctls: '{}' would change the node: the pod has host network",
                             name);
    }
  }
  return Status::Ok();
}

Status CheckMode(cri::NamespaceMode mode, std::initializer_list<cri::NamespaceMode> allowed,
                 std::string_view field) {
  if (std::find(allowed.begin(), allowed.end(), mode) != allowed.end()) return Status::Ok();
  return InvalidArgument("linux.security_context.namespace_options.{}: {} is not supported", field,
                         cri::NamespaceMode_Name(mode));
}

// In the thread that is inside the pod's new namespaces.
Status SetUp(const v1::PodRecord& pod, bool own_uts) {
  if (own_uts && sethostname(pod.hostname().data(), pod.hostname().size()) != 0) {
    return Status::FromErrno(errno, "sethostname");
  }
  // In a user namespace only its own root may set them: the runtime does, from inside.
  if (HasUserns(pod.config())) return Status::Ok();
  for (const auto& [name, value] : pod.config().linux().sysctls()) {
    const SysctlKind kind = SysctlKindOf(name);
    if (kind == SysctlKind::kIpc || kind == SysctlKind::kUts) {
      CRISP_TRY(os::WriteSysctl(name, value).While("linux.sysctls: {}", name));
    }
  }
  return Status::Ok();
}

// As CheckPodConfig has found them good.
std::optional<UsernsIds> IdsOf(const cri::PodSandboxConfig& config) {
  auto ids = UsernsIdsOf(Namespaces(config));
  return ids.ok() ? *ids : std::nullopt;
}

Status MakeNamespaces(const CallContext& cc, const Layout& layout, const std::string& pause,
                      const v1::PodRecord& pod) {
  const PodId id(pod.id());
  const bool own_uts = !IsHostNetwork(pod.config());
  std::vector<os::NamespaceTarget> targets;
  if (!IsHostIpc(pod.config())) targets.push_back({os::NamespaceKind::kIpc, layout.IpcPath(id)});
  if (own_uts) targets.push_back({os::NamespaceKind::kUts, layout.UtsPath(id)});
  std::vector<os::NamespacePin> pins;
  if (const auto ids = IdsOf(pod.config())) {
    pins =
        CRISP_TRY(PinUserNamespace(cc, pause, layout.UserPath(id), ids->uids, ids->gids, targets));
    std::vector<std::string> paths;
    for (const os::NamespaceTarget& target : targets) paths.push_back(target.path);
    CRISP_TRY(os::RunInNamespaces(paths, [&] { return SetUp(pod, own_uts); }));
  } else {
    pins = CRISP_TRY(os::NamespacePin::Create(targets, [&] { return SetUp(pod, own_uts); }));
  }
  for (os::NamespacePin& pin : pins) pin.Commit();  // the pod's record is there already
  return Status::Ok();
}

// Files that a container may write are its root's.
Status GiveToPod(const v1::PodRecord& pod, const std::string& path) {
  const auto ids = IdsOf(pod.config());
  if (!ids) return Status::Ok();
  if (lchown(path.c_str(), ids->uids.outside, ids->gids.outside) != 0) {
    return Status::Errno(errno, "chown {}", path);
  }
  return Status::Ok();
}

constexpr std::string_view kLocalHosts =
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "fe00::\tip6-mcastprefix\n"
    "fe00::1\tip6-allnodes\n"
    "fe00::2\tip6-allrouters\n";

// The host's own file, or nothing where it has none.
std::string HostFile(const std::string& path) { return os::ReadFile(path, MiB(1)).value_or(""); }

}  // namespace

bool IsHostIpc(const cri::PodSandboxConfig& config) {
  return Namespaces(config).ipc() == cri::NODE;
}

bool HasUserns(const cri::PodSandboxConfig& config) {
  return Namespaces(config).has_userns_options() &&
         Namespaces(config).userns_options().mode() != cri::NODE;
}

bool SharesPids(const cri::PodSandboxConfig& config) {
  return Namespaces(config).pid() == cri::POD;
}

Status CheckPodConfig(const cri::PodSandboxConfig& config) {
  const cri::NamespaceOption& namespaces = Namespaces(config);
  CRISP_TRY(CheckMode(namespaces.network(), {cri::POD, cri::NODE}, "network"));
  CRISP_TRY(CheckMode(namespaces.ipc(), {cri::POD, cri::NODE}, "ipc"));
  CRISP_TRY(CheckMode(namespaces.pid(), {cri::POD, cri::CONTAINER, cri::NODE}, "pid"));
  CRISP_TRY(UsernsIdsOf(namespaces));
  const auto& context = config.linux().security_context();
  CRISP_TRY(CheckSandboxSecurity(context));
  if (context.has_run_as_group() && !context.has_run_as_user()) {
    return InvalidArgument("linux.security_context.run_as_group is given without run_as_user");
  }
  if (config.hostname().size() > kMaxHostname) {
    return InvalidArgument("hostname: '{}' is longer than {} characters", config.hostname(),
                           kMaxHostname);
  }
  return CheckSysctls(config);
}

Result<std::string> HostnameOf(const PodId& id, const cri::PodSandboxConfig& config) {
  if (!config.hostname().empty()) return config.hostname();
  if (!IsHostNetwork(config)) return std::string(id.Short());
  std::array<char, kMaxHostname + 1> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) {
    return Status::FromErrno(errno, "gethostname");
  }
  return std::string(name.data());
}

PodFiles PodFilesOf(const Layout& layout, const v1::PodRecord& pod) {
  const PodId id(pod.id());
  const bool host_network = IsHostNetwork(pod.config());
  PodFiles files;
  files.netns_path = pod.netns_path();
  if (!IsHostIpc(pod.config())) {
    files.ipcns_path = layout.IpcPath(id);
    files.shm_path = layout.ShmDir(id);
  } else {
    files.shm_path = "/dev/shm";
  }
  if (!host_network) files.utsns_path = layout.UtsPath(id);
  if (pod.has_pause()) {
    files.pid_ns_path = layout.PidPath(id);
    // A pod of an older version has none pinned.
    if (!os::IsPinnedNamespace(files.pid_ns_path).value_or(false)) {
      files.pid_ns_path = fmt::format("/proc/{}/ns/pid", pod.pause().pid());
    }
  }
  files.resolv_conf = layout.ResolvConfPath(id);
  files.hosts = layout.HostsPath(id);
  files.hostname_file = layout.HostnamePath(id);
  files.hostname = pod.hostname();
  if (const auto ids = IdsOf(pod.config())) {
    files.userns = UserNamespace{layout.UserPath(id), ids->uids, ids->gids};
  }
  files.selinux_level = pod.selinux_level();
  return files;
}

std::string ResolvConfOf(const cri::DNSConfig& dns) {
  std::string text;
  if (!dns.searches().empty()) text += fmt::format("search {}\n", fmt::join(dns.searches(), " "));
  for (const std::string& server : dns.servers()) text += fmt::format("nameserver {}\n", server);
  if (!dns.options().empty()) text += fmt::format("options {}\n", fmt::join(dns.options(), " "));
  return text;
}

Status NoteCgroup(const Layout& layout, const PodId& id, const CgroupNote& note) {
  CRISP_TRY(os::MakeDirs(layout.PodDir(id), 0711));
  return os::WriteFile(layout.CgroupNotePath(id),
                       json::Dump({{"cgroup", note.cgroup}, {"ours", note.ours}}), 0600);
}

Result<CgroupNote> ReadCgroupNote(const Layout& layout, const PodId& id) {
  const std::string text = CRISP_TRY(os::ReadFile(layout.CgroupNotePath(id), KiB(8)));
  const nlohmann::json note = CRISP_TRY(json::Parse(text));
  return CgroupNote{CRISP_TRY(json::GetString(note, "cgroup")),
                    CRISP_TRY(json::OptBool(note, "ours"))};
}

Status MakePodFiles(const CallContext& cc, const Layout& layout, const std::string& pause,
                    const v1::PodRecord& pod, Bytes shm_size) {
  const PodId id(pod.id());
  CRISP_TRY(os::MakeDirs(layout.PodDir(id), 0711));
  if (!IsHostIpc(pod.config())) {
    CRISP_TRY(os::MakeDirs(layout.ShmDir(id), 0711));
    CRISP_TRY(os::Mount({"shm", layout.ShmDir(id), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
                         fmt::format("mode=1777,size={}", shm_size.count())})
                  .While("mount /dev/shm of the pod"));
    CRISP_TRY(GiveToPod(pod, layout.ShmDir(id)));
  }
  CRISP_TRY(MakeNamespaces(cc, layout, pause, pod).While("make the namespaces of the pod"));
  std::string resolv_conf = ResolvConfOf(pod.config().dns_config());
  if (resolv_conf.empty()) resolv_conf = HostFile("/etc/resolv.conf");
  const std::string hosts =
      IsHostNetwork(pod.config()) ? HostFile("/etc/hosts") : std::string(kLocalHosts);
  for (const auto& [path, text] :
       {std::pair{layout.ResolvConfPath(id), resolv_conf}, std::pair{layout.HostsPath(id), hosts},
        std::pair{layout.HostnamePath(id), pod.hostname() + "\n"}}) {
    CRISP_TRY(os::WriteFile(path, text));
    CRISP_TRY(GiveToPod(pod, path));
  }
  return Status::Ok();
}

Status LabelPodFiles(const Layout& layout, const v1::PodRecord& pod, const SelinuxNode& selinux) {
  if (!selinux.on()) return Status::Ok();
  const PodId id(pod.id());
  const SelinuxLabels labels =
      CRISP_TRY(LabelsOf(selinux, pod.config().linux().security_context().selinux_options(),
                         pod.selinux_level(), false));
  for (const std::string& path :
       {layout.ResolvConfPath(id), layout.HostsPath(id), layout.HostnamePath(id)}) {
    CRISP_TRY(Relabel(selinux, path, labels.mount));
  }
  if (IsHostIpc(pod.config())) return Status::Ok();
  return Relabel(selinux, layout.ShmDir(id), labels.mount);
}

void AddDefaultSysctls(const std::map<std::string, std::string>& defaults,
                       cri::PodSandboxConfig& config) {
  for (const auto& [name, value] : defaults) {
    const SysctlKind kind = SysctlKindOf(name);
    const bool possible = kind == SysctlKind::kIpc     ? !IsHostIpc(config)
                          : kind == SysctlKind::kOther ? false
                                                       : !IsHostNetwork(config);
    auto& sysctls = *config.mutable_linux()->mutable_sysctls();
    if (possible && !sysctls.contains(name)) sysctls[name] = value;
  }
}

Status AddHostsEntry(const Layout& layout, const v1::PodRecord& pod) {
  std::string text;
  for (const std::string& ip : pod.ips()) text += fmt::format("{}\t{}\n", ip, pod.hostname());
  if (text.empty() || IsHostNetwork(pod.config())) return Status::Ok();
  return os::WriteFile(layout.HostsPath(PodId(pod.id())), std::string(kLocalHosts) + text);
}

Status RemovePodFiles(const Layout& layout, const PodId& id) {
  if (!os::Exists(layout.PodDir(id))) return Status::Ok();
  CRISP_TRY(os::UnpinNamespace(layout.UserPath(id)));
  CRISP_TRY(os::UnpinNamespace(layout.IpcPath(id)));
  CRISP_TRY(os::UnpinNamespace(layout.UtsPath(id)));
  CRISP_TRY(os::UnpinNamespace(layout.PidPath(id)));
  if (!os::Unmount(layout.ShmDir(id)).ok()) {
    CRISP_TRY(os::Unmount(layout.ShmDir(id), os::UnmountHow::kLazy));
  }
  return os::RemoveTree(layout.PodDir(id));
}

}  // namespace crisp::rund
