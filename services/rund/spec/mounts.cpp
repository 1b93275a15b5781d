#include "services/rund/spec/mounts.h"

#include <algorithm>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/rund/spec/cri_mount.h"
#include "services/rund/spec/text.h"
#include "services/rund/spec/volumes.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

const char* Access(bool writable) { return writable ? "rw" : "ro"; }

std::vector<MountEntry> Defaults(const SpecInputs& inputs, const WritableMounts& writable) {
  const PodFiles& pod = inputs.pod_files;
  std::vector<MountEntry> entries = {
      {"/proc", "proc", "proc", {"nosuid", "noexec", "nodev"}},
      {"/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}},
      {"/dev/pts",
       "devpts",
       "devpts",
       {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
      {"/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}},
      {"/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", Access(writable.sys)}},
      {"/sys/fs/cgroup",
       "cgroup",
       "cgroup",
       {"nosuid", "noexec", "nodev", "relatime", Access(writable.cgroups)}}};
  const std::string shm =
      pod.shm_path.empty() && pod.ipcns_path.empty() ? "/dev/shm" : pod.shm_path;
  if (shm.empty()) {
    entries.push_back(
        {"/dev/shm", "tmpfs", "shm", {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}});
  } else {
    entries.push_back(
        {"/dev/shm", "bind", shm, {"rbind", "rprivate", "nosuid", "noexec", "nodev"}});
  }
  const char* file_access = Access(!inputs.config.linux().security_context().readonly_rootfs());
  for (const auto& [path, file] :
       {std::pair{"/etc/resolv.conf", &pod.resolv_conf}, std::pair{"/etc/hosts", &pod.hosts},
        std::pair{"/etc/hostname", &pod.hostname_file}}) {
    if (file->empty()) continue;
    entries.push_back(
        {path, "bind", *file, {"bind", "rprivate", "nosuid", "noexec", "nodev", file_access}});
  }
  return entries;
}

}  // namespace

Result<BuiltMounts> BuildMounts(const CallContext& cc, const SpecInputs& inputs,
                                const ImageConfig& image, const os::Beneath& rootfs,
                                const SpecDefaults& defaults, const WritableMounts& writable,
                                const std::string& mount_label) {
  BuiltMounts built;
  std::map<std::string, MountEntry> asked;  // by destination: the last one wins
  std::map<std::string, HostMount> host_mounts;
  HostMountTable table(defaults.host.mountinfo);
  for (int i = 0; i < inputs.config.mounts_size(); ++i) {
    CriMount mount = CRISP_TRY(BuildCriMount(inputs, i, defaults, table, mount_label));
    const std::string destination = mount.entry.destination;
    // The strongest wish counts for the one root file system.
    if (built.rootfs_propagation.empty() || mount.rootfs_propagation == "rshared") {
      built.rootfs_propagation = std::move(mount.rootfs_propagation);
    }
    host_mounts.erase(destination);
    if (mount.host_mount) host_mounts.emplace(destination, *std::move(mount.host_mount));
    asked.insert_or_assign(destination, std::move(mount.entry));
  }
  for (auto& [destination, mount] : host_mounts) built.host_mounts.push_back(std::move(mount));
  const auto covered = [&asked](const std::string& path) {
    return std::any_of(asked.begin(), asked.end(),
                       [&path](const auto& item) { return os::IsAtOrBelow(path, item.first); });
  };

  std::vector<MountEntry> entries;
  for (MountEntry& entry : Defaults(inputs, writable)) {
    if (!covered(entry.destination)) entries.push_back(std::move(entry));
  }
  std::set<std::string> volumes;
  for (const std::string& volume : image.volumes) {
    const std::string path = CleanPath(volume);
    if (path == "/") return InvalidArgument("the image has a VOLUME on \"{}\"", volume);
    if (covered(path) || !volumes.insert(path).second) continue;
    if (std::any_of(entries.begin(), entries.end(),
                    [&path](const MountEntry& entry) { return entry.destination == path; })) {
      continue;
    }
    if (inputs.volumes_dir.empty()) return Internal("no directory for the volumes of the image");
    const std::string target = fmt::format("{}/{}", inputs.volumes_dir, volumes.size() - 1);
    HostOwner root;
    if (const auto& userns = inputs.pod_files.userns) {
      root = {userns->uids.outside, userns->gids.outside};
    }
    CRISP_TRY(MakeVolume(cc, rootfs, path, target, root));
    CRISP_TRY(Relabel(defaults.selinux, target, mount_label).While("volume {}", path));
    asked.insert_or_assign(path, MountEntry{path, "bind", target, {"rbind", "rprivate", "rw"}});
  }
  for (auto& [path, entry] : asked) entries.push_back(std::move(entry));
  std::stable_sort(entries.begin(), entries.end(), [](const MountEntry& a, const MountEntry& b) {
    return PathDepth(a.destination) < PathDepth(b.destination);
  });
  for (const MountEntry& entry : entries) {
    built.mounts.push_back(entry.ToJson(inputs.pod_files.userns));
  }
  return built;
}

}  // namespace crisp::rund
