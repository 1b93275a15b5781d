#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "services/rund/spec/builder.h"

namespace crisp::rund {

/// One entry of the OCI spec's mounts.
struct MountEntry {
  std::string destination;
  std::string type;
  std::string source;
  std::vector<std::string> options;

  nlohmann::json ToJson() const {
    return {{"destination", destination}, {"type", type}, {"source", source}, {"options", options}};
  }
};

/// How the mount that holds a path takes part in propagation, from a mountinfo file.
enum class Propagation { kPrivate, kSlave, kShared };
/// `path` is absolute and resolved.
Propagation PropagationOf(std::string_view mountinfo, std::string_view path);

/// The host's mounts, read when they are first asked for.
class HostMountTable {
 public:
  explicit HostMountTable(std::string path) : path_(std::move(path)) {}
  Result<Propagation> Of(std::string_view path);

 private:
  std::string path_;  // of the mountinfo file
  std::optional<std::string> text_;
};

/// What a mount of the CRI becomes.
struct CriMount {
  MountEntry entry;
  std::string rootfs_propagation;       // what it needs of the root file system; empty = nothing
  std::optional<HostMount> host_mount;  // to be made before
};

/// Mounts[index] of the config. Makes a missing host path; labels it where that is asked for.
/// Errors as BuildMounts.
Result<CriMount> BuildCriMount(const SpecInputs& inputs, int index, const SpecDefaults& defaults,
                               HostMountTable& table, const std::string& mount_label);

}  // namespace crisp::rund
