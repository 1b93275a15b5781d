#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cri/v1/api.pb.h"
#include "libs/base/guarded.h"
#include "libs/base/result.h"
#include "services/rund/spec/spec_dirs.h"
#include "services/rund/spec/user.h"

namespace crisp::rund {

/// One CDI spec file: a kind ("vendor.com/class") with devices, what each needs in a container, and
/// what all of them need.
struct CdiSpec {
  std::string path;
  std::string kind;
  nlohmann::json edits;                           // containerEdits of all devices
  std::map<std::string, nlohmann::json> devices;  // containerEdits by name

  /// kInvalidArgument says what is wrong. An edit that we do not know is wrong: a device without it
  /// would be half a device.
  static Result<CdiSpec> Parse(nlohmann::json root);
};

/// The devices that a container asks for by name: CDI_devices, then the annotations cdi.k8s.io/*
/// (names with commas between), each once. kInvalidArgument: what is no vendor/class=name.
Result<std::vector<std::string>> CdiDevicesOf(const runtime::v1::ContainerConfig& config);

/// Directories of CDI spec files; of two files that describe the same device the one in the later
/// directory counts. What changes there counts for the next container. Any thread.
class CdiDirs {
 public:
  explicit CdiDirs(std::vector<std::string> directories) : directories_(std::move(directories)) {}

  /// Writes what these devices need into an OCI spec: environment, device nodes (with rules for the
  /// device cgroup unless `privileged`), mounts, hooks, groups. kInvalidArgument names the device
  /// that no file describes, or that two files of one directory do, and the files that could not be
  /// read.
  Status Apply(const std::vector<std::string>& devices, const ResolvedUser& user, bool privileged,
               nlohmann::json& spec) const;

 private:
  struct Index {
    std::vector<std::shared_ptr<const CdiSpec>> specs;  // later ones win
    std::vector<int> priorities;                        // of specs, by index
    std::vector<std::string> broken;                    // files that say nothing, and why
  };
  struct Cache {
    std::vector<SpecFile> files;
    std::shared_ptr<const Index> index;
  };
  std::shared_ptr<const Index> Current() const;
  static Result<std::shared_ptr<const CdiSpec>> Find(const Index& index, const std::string& device);

  std::vector<std::string> directories_;
  mutable Guarded<Cache> cache_;
};

}  // namespace crisp::rund
