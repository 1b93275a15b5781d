#pragma once

#include <string>

#include <catch2/catch.hpp>

#include "integration/harness/node.h"
#include "integration/harness/require.h"

namespace crisp::harness {

/// The node that the tests of this program share; made by the first one that asks, gone when the
/// last test has ended.
Node& SharedNode();

/// What a test case works in. Its end removes all pods and fails the test for what is left of them.
class OnNode {
 public:
  OnNode() : node(SharedNode()) {}
  OnNode(const OnNode&) = delete;
  OnNode& operator=(const OnNode&) = delete;
  ~OnNode();

  /// A READY pod.
  std::string Pod(const cri::PodSandboxConfig& config, const std::string& handler = "");
  /// A created (not started) container.
  std::string Created(const std::string& pod, const cri::PodSandboxConfig& pod_config,
                      const cri::ContainerConfig& config);
  std::string Running(const std::string& pod, const cri::PodSandboxConfig& pod_config,
                      const cri::ContainerConfig& config);
  /// Host network, one container that sleeps.
  std::string Sleeper(const std::string& name);
  cri::ContainerStatus StatusOf(const std::string& container) const;
  /// Waits for EXITED and gives its status.
  cri::ContainerStatus Exited(const std::string& container) const;
  /// The log file once it holds `text` (or after some seconds).
  std::string Log(const cri::PodSandboxConfig& pod, const cri::ContainerConfig& config,
                  const std::string& text = "\n") const;

  Node& node;
  const Cri& cri = node.cri();
};

}  // namespace crisp::harness
