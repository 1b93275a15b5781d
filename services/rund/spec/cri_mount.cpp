#include "services/rund/spec/cri_mount.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "libs/base/try.h"
#include "libs/os/files.h"
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
    return NotFound("{} {} does not exist, and is not made by a runtime", field, asked);
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
                      [&source](const std::string& root) { return IsAtOrBelow(root, source); });
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

/// An image's files: never writable, nothing in them is to be trusted as a program of the node's.
Result<CriMount> ImageMount(const SpecInputs& inputs, const runtime::v1::Mount& mount, int index,
                            std::string_view field) {
  if (!mount.host_path().empty()) {
    return InvalidArgument("{}.host_path is set beside an image", field);
  }
  if (mount.propagation() != runtime::v1::PROPAGATION_PRIVATE) {
    return InvalidArgument("{}.propagation: an image has PRIVATE only", field);
  }
  if (mount.uidmappings_size() + mount.gidmappings_size() > 0) {
    return Unimplemented("{}.uidMappings of an image are not supported", field);
  }
  const std::string& sub_path = mount.image_sub_path();
  if (sub_path.starts_with('/') || sub_path.find('\0') != std::string::npos) {
    return InvalidArgument("{}.image_sub_path \"{}\" is not a path in the image", field, sub_path);
  }
  if (inputs.mounts_dir.empty()) return Internal("no directory for the images to mount");
  CriMount built;
  built.host_mount = HostMount{index, fmt::format("{}/{}", inputs.mounts_dir, index), sub_path};
  built.entry = {CleanPath(mount.container_path()),
                 "bind",
                 built.host_mount->target,
                 {"rbind", "rprivate", "ro", "noexec", "nosuid", "nodev"}};
  for (const std::string& option : mount.mount_options()) {
    if (option == "exec" || option == "suid" || option == "dev") {
      return InvalidArgument("{}.mount_options: an image is never mounted {}", field, option);
    }
  }
  CRISP_TRY(AddOptions(mount, field, built.entry.options));
  return built;
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

Result<Propagation> HostMountTable::Of(std::string_view path) {
  if (!text_) text_ = CRISP_TRY(os::ReadFile(path_, MiB(64)));
  return PropagationOf(*text_, path);
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
  if (mount.uidmappings_size() + mount.gidmappings_size() > 0) {
    return Unimplemented("{}.uidMappings: id-mapped mounts are not supported yet", field);
  }
  CriMount built;
  built.entry = {CleanPath(mount.container_path()), "bind", "", {"rbind"}};
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
