#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/os/mount.h"
#include "services/rund/spec/builder.h"

namespace crisp::rund {

/// One entry of the OCI spec's mounts.
struct MountEntry {
  std::string destination;
  std::string type;
  std::string source;
  std::vector<std::string> options;
  bool id_mapped = false;  // by the pod's user namespace

  nlohmann::json ToJson(const std::optional<UserNamespace>& userns) const;
};

/// How the mount that holds a path takes part in propagation.
enum class Propagation { kPrivate, kSlave, kShared };
/// `path` is absolute and resolved.
Propagation PropagationOf(const std::vector<os::MountEntry>& mounts, std::string_view path);

/// The host's mounts, read when they are first asked for.
class HostMountTable {
 public:
  explicit HostMountTable(std::string path) : path_(std::move(path)) {}
  Result<Propagation> Of(std::string_view path);

 private:
  std::string path_;  // of the mountinfo file
  std::optional<std::vector<os::MountEntry>> mounts_;
};

/// What a mount of the CRI becomes.
struct CriMount {
  MountEntry entry;
  std::string rootfs_propagation;       // what it needs of the root file system; empty = nothing
  std::optional<HostMount> host_mount;  // to be made before
};

/// Mounts[index] of the config. Makes a missing host path; labels it where that is asked for. Its
/// id mappings can only be those of the pod's user namespace. Errors as BuildMounts.
Result<CriMount> BuildCriMount(const SpecInputs& inputs, int index, const SpecDefaults& defaults,
                               HostMountTable& table, const std::string& mount_label);

}  // namespace crisp::rund
