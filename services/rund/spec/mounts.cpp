#include "services/rund/spec/mounts.h"

#include <filesystem>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/rund/spec/text.h"
#include "services/rund/spec/volumes.h"

namespace crisp::rund {
namespace {

using nlohmann::json;
using Options = std::vector<std::string>;

struct Entry {
  std::string destination;
  std::string type;
  std::string source;
  Options options;

  json ToJson() const {
    return {{"destination", destination}, {"type", type}, {"source", source}, {"options", options}};
  }
};

std::vector<Entry> Defaults(const SpecInputs& inputs, bool privileged) {
  const PodFiles& pod = inputs.pod_files;
  const char* sys_access = privileged ? "rw" : "ro";
  std::vector<Entry> entries = {
      {"/proc", "proc", "proc", {"nosuid", "noexec", "nodev"}},
      {"/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}},
      {"/dev/pts",
       "devpts",
       "devpts",
       {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
      {"/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}},
      {"/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", sys_access}},
      {"/sys/fs/cgroup",
       "cgroup",
       "cgroup",
       {"nosuid", "noexec", "nodev", "relatime", sys_access}}};
  const std::string shm =
      pod.shm_path.empty() && pod.ipcns_path.empty() ? "/dev/shm" : pod.shm_path;
  if (shm.empty()) {
    entries.push_back(
        {"/dev/shm", "tmpfs", "shm", {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}});
  } else {
    entries.push_back(
        {"/dev/shm", "bind", shm, {"rbind", "rprivate", "nosuid", "noexec", "nodev"}});
  }
  const char* file_access =
      inputs.config.linux().security_context().readonly_rootfs() ? "ro" : "rw";
  for (const auto& [path, file] :
       {std::pair{"/etc/resolv.conf", &pod.resolv_conf}, std::pair{"/etc/hosts", &pod.hosts},
        std::pair{"/etc/hostname", &pod.hostname_file}}) {
    if (file->empty()) continue;
    entries.push_back(
        {path, "bind", *file, {"bind", "rprivate", "nosuid", "noexec", "nodev", file_access}});
  }
  return entries;
}

/// The host's side of a mount: resolved, made when it is not there.
Result<std::string> HostPath(const std::string& asked, const SpecDefaults& defaults,
                             std::string_view field) {
  namespace fs = std::filesystem;
  if (asked.empty()) return InvalidArgument("{} is empty", field);
  if (!asked.starts_with('/')) return InvalidArgument("{} \"{}\" is not absolute", field, asked);
  std::error_code error;
  fs::path resolved = fs::canonical(asked, error);
  if (!error) return resolved.string();
  if (error != std::errc::no_such_file_or_directory) {
    return Status::Errno(error.value(), "{} {}", field, asked);
  }
  const std::string clean = CleanPath(asked);
  if (os::Exists(clean)) return InvalidArgument("{} {} is a link to nowhere", field, asked);
  const auto& never = defaults.never_created_host_paths;
  if (std::any_of(never.begin(), never.end(),
                  [&clean](const std::string& path) { return CleanPath(path) == clean; })) {
    return NotFound("{} {} does not exist, and is not made by a runtime", field, asked);
  }
  CRISP_TRY(os::MakeDirs(asked, 0755).While("{}: make the missing directory", field));
  resolved = fs::canonical(asked, error);
  if (error) return Status::Errno(error.value(), "{} {}", field, asked);
  return resolved.string();
}

/// What we do not do yet is refused by name, never passed over.
Status CheckSupported(const runtime::v1::Mount& mount, std::string_view field,
                      const HostFacts& host) {
  if (mount.has_image()) {
    return Unknown("ImageVolumeMountFailed: {}.image: image volumes are not supported yet", field);
  }
  if (mount.uidmappings_size() > 0 || mount.gidmappings_size() > 0) {
    return Unimplemented("{}.uidMappings: id-mapped mounts are not supported yet", field);
  }
  if (mount.mount_options_size() > 0) {
    return Unimplemented("{}.mount_options is not supported yet", field);
  }
  if (!mount.image_sub_path().empty()) {
    return InvalidArgument("{}.image_sub_path is set without an image", field);
  }
  // Without SELinux there are no labels, and nothing to do.
  if (mount.selinux_relabel() && host.selinux) {
    return Unimplemented("{}.selinux_relabel: SELinux is not supported yet", field);
  }
  return Status::Ok();
}

Result<Entry> FromCri(const SpecInputs& inputs, const runtime::v1::Mount& mount,
                      const std::string& field, const SpecDefaults& defaults,
                      const std::string& mountinfo, std::string& rootfs_propagation) {
  CRISP_TRY(CheckSupported(mount, field, defaults.host));
  if (mount.container_path().empty()) return InvalidArgument("{}.container_path is empty", field);
  Entry entry{CleanPath(mount.container_path()), "bind", "", {"rbind"}};
  if (entry.destination == "/") {
    return InvalidArgument("{}.container_path: the root file system cannot be mounted over", field);
  }
  entry.source = CRISP_TRY(HostPath(mount.host_path(), defaults, field + ".host_path"));

  switch (mount.propagation()) {
    case runtime::v1::PROPAGATION_PRIVATE: entry.options.emplace_back("rprivate"); break;
    case runtime::v1::PROPAGATION_HOST_TO_CONTAINER:
      if (PropagationOf(mountinfo, entry.source) == Propagation::kPrivate) {
        return InvalidArgument(
            "{}.propagation: {} is on a mount that is neither shared nor a slave on the host",
            field, entry.source);
      }
      entry.options.emplace_back("rslave");
      if (rootfs_propagation.empty()) rootfs_propagation = "rslave";
      break;
    case runtime::v1::PROPAGATION_BIDIRECTIONAL:
      if (PropagationOf(mountinfo, entry.source) != Propagation::kShared) {
        return InvalidArgument("{}.propagation: {} is on a mount that is not shared on the host",
                               field, entry.source);
      }
      entry.options.emplace_back("rshared");
      rootfs_propagation = "rshared";
      break;
    default:
      return InvalidArgument("{}.propagation: unknown value {}", field,
                             static_cast<int>(mount.propagation()));
  }

  if (mount.recursive_read_only()) {
    if (!mount.readonly()) {
      return InvalidArgument("{}.recursive_read_only is set without readonly", field);
    }
    if (mount.propagation() != runtime::v1::PROPAGATION_PRIVATE) {
      return InvalidArgument("{}.recursive_read_only needs propagation PRIVATE", field);
    }
    if (!inputs.runtime.recursive_read_only) {
      return Unknown("RROUnsupported: {}.recursive_read_only: runtime handler \"{}\" cannot do it",
                     field, inputs.runtime.name);
    }
    entry.options.emplace_back("rro");
  } else {
    entry.options.emplace_back(mount.readonly() ? "ro" : "rw");
  }
  return entry;
}

/// Names in mountinfo have blanks, tabs, newlines and backslashes as \ooo.
std::string Unescape(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      unsigned value = 0;
      for (std::size_t k = 1; k <= 3; ++k)
        value = value * 8 + static_cast<unsigned>(text[i + k] - '0');
      plain += static_cast<char>(value & 0xFFU);
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

}  // namespace

Propagation PropagationOf(std::string_view mountinfo, std::string_view path) {
  Propagation found = Propagation::kPrivate;
  std::size_t best = 0;
  while (!mountinfo.empty()) {
    const std::size_t newline = mountinfo.find('\n');
    std::string_view line = mountinfo.substr(0, newline);
    mountinfo.remove_prefix(newline == std::string_view::npos ? mountinfo.size() : newline + 1);
    std::vector<std::string_view> fields;
    while (!line.empty()) {
      const std::size_t blank = line.find(' ');
      fields.push_back(line.substr(0, blank));
      line.remove_prefix(blank == std::string_view::npos ? line.size() : blank + 1);
    }
    if (fields.size() < 7) continue;
    const std::string point = Unescape(fields[4]);
    // Of two on the same point the later one is on top.
    if (!IsAtOrBelow(path, point) || point.size() < best) continue;
    best = point.size();
    found = Propagation::kPrivate;
    for (std::size_t i = 6; i < fields.size() && fields[i] != "-"; ++i) {
      if (fields[i].starts_with("shared:")) {
        found = Propagation::kShared;
        break;
      }
      if (fields[i].starts_with("master:")) found = Propagation::kSlave;
    }
  }
  return found;
}

Result<BuiltMounts> BuildMounts(const SpecInputs& inputs, const ImageConfig& image,
                                const os::Beneath& rootfs, const SpecDefaults& defaults,
                                bool privileged) {
  BuiltMounts built;
  std::map<std::string, Entry> asked;  // by destination: the last one wins
  std::string mountinfo;
  for (int i = 0; i < inputs.config.mounts_size(); ++i) {
    const runtime::v1::Mount& mount = inputs.config.mounts(i);
    if (mountinfo.empty() && mount.propagation() != runtime::v1::PROPAGATION_PRIVATE) {
      mountinfo = CRISP_TRY(os::ReadFile(defaults.host.mountinfo, MiB(64)));
    }
    Entry entry = CRISP_TRY(FromCri(inputs, mount, fmt::format("mounts[{}]", i), defaults,
                                    mountinfo, built.rootfs_propagation));
    asked.insert_or_assign(entry.destination, std::move(entry));
  }
  const auto covered = [&asked](const std::string& path) {
    return std::any_of(asked.begin(), asked.end(),
                       [&path](const auto& item) { return IsAtOrBelow(path, item.first); });
  };

  std::vector<Entry> entries;
  for (Entry& entry : Defaults(inputs, privileged)) {
    if (!covered(entry.destination)) entries.push_back(std::move(entry));
  }
  std::set<std::string> volumes;
  for (const std::string& volume : image.volumes) {
    const std::string path = CleanPath(volume);
    if (path == "/") return InvalidArgument("the image has a VOLUME on \"{}\"", volume);
    if (covered(path) || !volumes.insert(path).second) continue;
    if (std::any_of(entries.begin(), entries.end(),
                    [&path](const Entry& entry) { return entry.destination == path; })) {
      continue;
    }
    if (inputs.volumes_dir.empty()) return Internal("no directory for the volumes of the image");
    const std::string target = fmt::format("{}/{}", inputs.volumes_dir, volumes.size() - 1);
    CRISP_TRY(MakeVolume(rootfs, path, target));
    asked.insert_or_assign(path, Entry{path, "bind", target, {"rbind", "rprivate", "rw"}});
  }
  for (auto& [path, entry] : asked) entries.push_back(std::move(entry));
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return PathDepth(a.destination) < PathDepth(b.destination);
  });
  for (const Entry& entry : entries) built.mounts.push_back(entry.ToJson());
  return built;
}

}  // namespace crisp::rund
