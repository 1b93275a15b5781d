#pragma once

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libs/base/result.h"

namespace crisp::bench {

struct FloorOptions {
  std::string directory;  // everything is made below it
  std::string runtime = "/usr/bin/runc";
  std::string conmon = "/usr/bin/conmon";
  std::string cni_conf;  // a conflist; empty = host network
  std::string cni_bin = "/usr/lib/cni";
  std::string lower;    // an unpacked image
  nlohmann::json spec;  // config.json as crisp wrote it
  std::string cgroup_parent = "/crisp-floor";
};

/// What the parts of a pod's start took.
struct FloorStages {
  std::chrono::steady_clock::duration sandbox{};  // namespaces and network
  std::chrono::steady_clock::duration create{};   // rootfs, bundle, conmon and the runtime's create
  std::chrono::steady_clock::duration start{};    // the runtime's start
};

/// A pod with one container, made of nothing but the parts that any runtime needs: namespaces, the
/// CNI plugins, an overlay mount, conmon with the OCI runtime. Nothing is recorded, nothing is
/// checked twice.
class FloorPod {
 public:
  /// From nothing to a started container. On failure what was made is taken down again.
  static Result<std::unique_ptr<FloorPod>> Start(const FloorOptions& options,
                                                 const std::string& id);
  FloorPod(const FloorPod&) = delete;
  FloorPod& operator=(const FloorPod&) = delete;
  ~FloorPod();

  const FloorStages& stages() const { return stages_; }
  /// Runs a command in the container by the runtime's own `exec`; its exit code must be 0.
  Status Exec(const std::vector<std::string>& command) const;

  /// Kills, deletes, unmounts, CNI DEL, unpins.
  Status Stop();

 private:
  FloorPod(const FloorOptions& options, std::string id);
  Status MakeNamespaces();
  Status Cni(const char* verb);
  Status MountRootfs() const;
  Status WriteBundle() const;
  Status Create();
  Status Runtime(const std::vector<std::string>& arguments) const;

  const FloorOptions& options_;
  std::string id_;
  std::string dir_;
  nlohmann::json cni_result_;
  FloorStages stages_;
  bool stopped_ = false;
};

}  // namespace crisp::bench
