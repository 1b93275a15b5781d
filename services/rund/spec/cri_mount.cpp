#include "services/rund/spec/cri_mount.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/rund/spec/namespaces.h"
#include "services/rund/spec/text.h"

namespace crisp::rund {
namespace {

using Options = std::vector<std::string>;

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
    return FailedPrecondition("{} {} does not exist, and is not made by a runtime", field, asked);
  }
  CRISP_TRY(os::MakeDirs(asked, 0755).While("{}: make the missing directory", field));
  resolved = fs::canonical(asked, error);
  if (error) return Status::Errno(error.value(), "{} {}", field, asked);
  return resolved.string();
}

/// Flags of a single mount, each with the one that undoes it.
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kFlags = {
    {{"noexec", "exec"},
     {"nosuid", "suid"},
     {"nodev", "dev"},
     {"noatime", "atime"},
     {"nodiratime", "diratime"},
     {"relatime", "norelatime"},
     {"strictatime", "nostrictatime"}}};

Status AddOptions(const runtime::v1::Mount& mount, std::string_view field, Options& options) {
  for (const std::string& option : mount.mount_options()) {
    const auto* flag = std::find_if(kFlags.begin(), kFlags.end(), [&option](const auto& pair) {
      return pair.first == option || pair.second == option;
    });
    if (flag == kFlags.end()) {
      return InvalidArgument("{}.mount_options: \"{}\" is not an option of a bind mount", field,
                             option);
    }
    // The last word on a flag counts.
    options.erase(std::remove_if(options.begin(), options.end(),
                                 [flag](const std::string& known) {
                                   return known == flag->first || known == flag->second;
                                 }),
                  options.end());
    options.push_back(option);
  }
  return Status::Ok();
}

/// What the host's mount must be, and the root file system become, for the propagation asked for.
Status AddPropagation(const runtime::v1::Mount& mount, std::string_view field,
                      const SpecDefaults& defaults, HostMountTable& table, CriMount& built) {
  const std::string& source = built.entry.source;
  switch (mount.propagation()) {
    case runtime::v1::PROPAGATION_PRIVATE: {
      // Who has our own directories in view would keep the mounts of containers that have gone:
      // unmounting must reach it.
      const bool ours =
          std::any_of(defaults.storage_roots.begin(), defaults.storage_roots.end(),
                      [&source](const std::string& root) { return os::IsAtOrBelow(root, source); });
      if (ours && CRISP_TRY(table.Of(source)) != Propagation::kPrivate) {
        built.entry.options.emplace_back("rslave");
        built.rootfs_propagation = "rslave";
      } else {
        built.entry.options.emplace_back("rprivate");
      }
      return Status::Ok();
    }
    case runtime::v1::PROPAGATION_HOST_TO_CONTAINER:
      if (CRISP_TRY(table.Of(source)) == Propagation::kPrivate) {
        return InvalidArgument(
            "{}.propagation: {} is on a mount that is neither shared nor a slave on the host",
            field, source);
      }
      built.entry.options.emplace_back("rslave");
      built.rootfs_propagation = "rslave";
      return Status::Ok();
    case runtime::v1::PROPAGATION_BIDIRECTIONAL:
      if (CRISP_TRY(table.Of(source)) != Propagation::kShared) {
        return InvalidArgument("{}.propagation: {} is on a mount that is not shared on the host",
                               field, source);
      }
      built.entry.options.emplace_back("rshared");
      built.rootfs_propagation = "rshared";
      return Status::Ok();
    default:
      return InvalidArgument("{}.propagation: unknown value {}", field,
                             static_cast<int>(mount.propagation()));
  }
}

Status AddAccess(const runtime::v1::Mount& mount, std::string_view field,
                 const RuntimeInfo& runtime, Options& options) {
  if (!mount.recursive_read_only()) {
    options.emplace_back(mount.readonly() ? "ro" : "rw");
    return Status::Ok();
  }
  if (!mount.readonly()) {
    return InvalidArgument("{}.recursive_read_only is set without readonly", field);
  }
  if (mount.propagation() != runtime::v1::PROPAGATION_PRIVATE) {
    return InvalidArgument("{}.recursive_read_only needs propagation PRIVATE", field);
  }
  if (!runtime.recursive_read_only) {
    return Unknown("RROUnsupported: {}.recursive_read_only: runtime handler \"{}\" cannot do it",
                   field, runtime.name);
  }
  options.emplace_back("rro");
  return Status::Ok();
}

using Mappings = google::protobuf::RepeatedPtrField<runtime::v1::IDMapping>;

bool IsExactly(const Mappings& mappings, const os::IdRange& ids) {
  return mappings.size() == 1 && mappings[0].container_id() == ids.inside &&
         mappings[0].host_id() == ids.outside && mappings[0].length() == ids.count;
}

/// Whether the mount is to show the owners that the pod's user namespace gives. (The kubelet says
/// so of each mount of such a pod, also of files and images.)
Result<bool> IsIdMapped(const SpecInputs& inputs, const runtime::v1::Mount& mount,
                        std::string_view field) {
  if (mount.uidmappings_size() + mount.gidmappings_size() == 0) return false;
  const auto& userns = inputs.pod_files.userns;
  if (!userns) {
    return InvalidArgument("{}.uidMappings: the pod has no user namespace of its own", field);
  }
  if (!IsExactly(mount.uidmappings(), userns->uids)) {
    return InvalidArgument("{}.uidMappings: only the mapping of the pod is possible", field);
  }
  if (!IsExactly(mount.gidmappings(), userns->gids)) {
    return InvalidArgument("{}.gidMappings: only the mapping of the pod is possible", field);
  }
  return true;
}

/// An image's files: never writable, nothing in them is to be trusted as a program of the node's.
Result<CriMount> ImageMount(const SpecInputs& inputs, const runtime::v1::Mount& mount, int index,
                            std::string_view field) {
  if (!mount.host_path().empty()) {
    return InvalidArgument("{}.host_path is set beside an image", field);
  }
  if (mount.propagation() != runtime::v1::PROPAGATION_PRIVATE) {
    return InvalidArgument("{}.propagation: an image has PRIVATE only", field);
  }
  // What the host mounts for such a pod is mapped whatever is asked for.
  CRISP_TRY(IsIdMapped(inputs, mount, field));
  const std::string& sub_path = mount.image_sub_path();
  if (sub_path.starts_with('/') || sub_path.find('\0') != std::string::npos) {
    return InvalidArgument("{}.image_sub_path \"{}\" is not a path in the image", field, sub_path);
  }
  if (inputs.mounts_dir.empty()) return Internal("no directory for the images to mount");
  CriMount built;
  built.host_mount = HostMount{index, fmt::format("{}/{}", inputs.mounts_dir, index), sub_path};
  built.entry.destination = CleanPath(mount.container_path());
  built.entry.type = "bind";
  built.entry.source = built.host_mount->target;
  built.entry.options = {"rbind", "rprivate"};
  CRISP_TRY(AddAccess(mount, field, inputs.runtime, built.entry.options));
  if (!mount.readonly()) {
    return InvalidArgument("{}.readonly is false: an image is only ever read", field);
  }
  for (const char* option : {"nosuid", "nodev"}) built.entry.options.emplace_back(option);
  for (const std::string& option : mount.mount_options()) {
    if (option == "suid" || option == "dev") {
      return InvalidArgument("{}.mount_options: an image is never mounted {}", field, option);
    }
  }
  CRISP_TRY(AddOptions(mount, field, built.entry.options));
  return built;
}

}  // namespace

nlohmann::json MountEntry::ToJson(const std::optional<UserNamespace>& userns) const {
  nlohmann::json entry = {
      {"destination", destination}, {"type", type}, {"source", source}, {"options", options}};
  if (id_mapped && userns) {
    entry["uidMappings"] = MappingOf(userns->uids);
    entry["gidMappings"] = MappingOf(userns->gids);
  }
  return entry;
}

Propagation PropagationOf(const std::vector<os::MountEntry>& mounts, std::string_view path) {
  Propagation found = Propagation::kPrivate;
  std::size_t best = 0;
  for (const os::MountEntry& mount : mounts) {
    // Of two on the same point the later one is on top.
    if (!os::IsAtOrBelow(path, mount.mount_point) || mount.mount_point.size() < best) continue;
    best = mount.mount_point.size();
    const auto has = [&mount](std::string_view tag) {
      return std::any_of(mount.tags.begin(), mount.tags.end(),
                         [tag](const std::string& text) { return text.starts_with(tag); });
    };
    found = has("shared:")   ? Propagation::kShared
            : has("master:") ? Propagation::kSlave
                             : Propagation::kPrivate;
  }
  return found;
}

Result<Propagation> HostMountTable::Of(std::string_view path) {
  if (!mounts_) mounts_ = CRISP_TRY(os::ReadMounts(path_));
  return PropagationOf(*mounts_, path);
}

Result<CriMount> BuildCriMount(const SpecInputs& inputs, int index, const SpecDefaults& defaults,
                               HostMountTable& table, const std::string& mount_label) {
  const runtime::v1::Mount& mount = inputs.config.mounts(index);
  const std::string field = fmt::format("mounts[{}]", index);
  if (mount.container_path().empty()) return InvalidArgument("{}.container_path is empty", field);
  if (CleanPath(mount.container_path()) == "/") {
    return InvalidArgument("{}.container_path: the root file system cannot be mounted over", field);
  }
  if (!mount.image().image().empty()) return ImageMount(inputs, mount, index, field);
  if (!mount.image_sub_path().empty()) {
    return InvalidArgument("{}.image_sub_path is set without an image", field);
  }
  CriMount built;
  built.entry.id_mapped = CRISP_TRY(IsIdMapped(inputs, mount, field));
  if (built.entry.id_mapped && !inputs.runtime.idmapped_mounts) {
    return FailedPrecondition("{}.uidMappings: runtime handler \"{}\" has no ID-mapped mounts",
                              field, inputs.runtime.name);
  }
  built.entry.destination = CleanPath(mount.container_path());
  built.entry.type = "bind";
  built.entry.options = {"rbind"};
  built.entry.source = CRISP_TRY(HostPath(mount.host_path(), defaults, field + ".host_path"));
  CRISP_TRY(AddPropagation(mount, field, defaults, table, built));
  CRISP_TRY(AddAccess(mount, field, inputs.runtime, built.entry.options));
  CRISP_TRY(AddOptions(mount, field, built.entry.options));
  if (mount.selinux_relabel()) {
    CRISP_TRY(Relabel(defaults.selinux, built.entry.source, mount_label)
                  .While("{}.selinux_relabel", field));
  }
  return built;
}

}  // namespace crisp::rund
