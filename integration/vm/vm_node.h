#pragma once

#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "integration/harness/cri.h"
#include "integration/harness/node.h"
#include "integration/harness/require.h"

namespace crisp::harness {

/// The machine itself as a node: the installed daemons under systemd, one cgroup v2 tree. What a
/// test case works in; its end removes all pods and fails the test for what is left of them.
/// CRISP_VM_DRIVER (cgroupfs, systemd) and CRISP_VM_HANDLER (runc, crun) say what is in force.
class Vm {
 public:
  Vm();
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;
  ~Vm();

  static bool systemd();
  static const std::string& handler();
  static constexpr const char* kImage = "localhost/busybox:1";

  /// Host network, in a cgroup that is made here, as a kubelet does; under the driver in force.
  cri::PodSandboxConfig PodConfig(const std::string& name);
  cri::ContainerConfig ContainerConfig(const std::vector<std::string>& command);
  /// A READY pod, with the handler in force.
  std::string Pod(const cri::PodSandboxConfig& config);
  std::string Created(const std::string& pod, const cri::PodSandboxConfig& pod_config,
                      const cri::ContainerConfig& config);
  std::string Running(const std::string& pod, const cri::PodSandboxConfig& pod_config,
                      const cri::ContainerConfig& config);

  cri::ContainerStatus StatusOf(const std::string& container) const;
  cri::ContainerStatus Exited(const std::string& container) const;
  /// What a shell in the container prints, without the last newline; fails the test unless it ends
  /// with 0.
  std::string Said(const std::string& container, const std::string& script) const;
  /// Of the container's first process, on the machine.
  int Pid(const std::string& container) const;
  /// The directory of the cgroup of that process, as the kernel says it.
  std::string CgroupDir(const std::string& container) const;
  /// A file of it, without the last newline; "(none)".
  std::string CgroupFile(const std::string& container, const std::string& file) const;

  /// Ids, and slices and directories of pods, that may not be there at the end.
  void Remember(const std::string& id) { ids_.push_back(id); }
  std::vector<std::string> Leftovers() const;

  /// kill -9 of one daemon; returns when systemd has started it again and the node is ready.
  void KillDaemon(const std::string& service);
  void WaitReady() const;

 private:
  std::string MakePodCgroup(const std::string& uid);

  Cri cri_{"/run/crisp/crisp.sock"};
  std::vector<std::string> ids_;
  std::vector<std::string> parents_;  // cgroups of pods that were made here

 public:
  const Cri& cri = cri_;
};

/// A file without its last newline; "(none)" when it cannot be read.
std::string FileText(const std::string& path);
/// A shell command on the machine; what it prints. Fails the test unless it ends with 0.
std::string Sh(const std::string& script);

}  // namespace crisp::harness
