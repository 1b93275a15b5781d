#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include "integration/e2e/shared_node.h"

#include <memory>

#include "libs/os/files.h"

namespace crisp::harness {
namespace {

std::unique_ptr<Node>& Slot() {
  static std::unique_ptr<Node> node;
  return node;
}

/// Takes the node down at the end of the run, whatever became of the tests.
struct TakeDown final : Catch::TestEventListenerBase {
  using TestEventListenerBase::TestEventListenerBase;
  void testRunEnded(const Catch::TestRunStats& stats) override {
    if (stats.totals.assertions.failed > 0 && Slot() != nullptr) {
      Catch::cout() << "last words of the daemons\n" << Slot()->Logs() << "\n";
    }
    Slot().reset();
  }
};

}  // namespace

CATCH_REGISTER_LISTENER(TakeDown)

Node& SharedNode() {
  if (Slot() == nullptr) {
    Slot() = std::make_unique<Node>(
        NodeOptions{.yaml = "imaged:\n  orphan_grace_seconds: 2\n", .without_unified = false});
  }
  return *Slot();
}

OnNode::~OnNode() {
  const std::vector<std::string> left = node.CleanUp();
  for (const std::string& line : left) UNSCOPED_INFO(line);
  CHECK(left.empty());
}

std::string OnNode::Pod(const cri::PodSandboxConfig& config, const std::string& handler) {
  const auto answer = cri.RunPod(config, handler);
  REQUIRE_OK(answer);
  node.Remember(answer->pod_sandbox_id());
  return answer->pod_sandbox_id();
}

std::string OnNode::Created(const std::string& pod, const cri::PodSandboxConfig& pod_config,
                            const cri::ContainerConfig& config) {
  const auto answer = cri.Create(pod, config, pod_config);
  REQUIRE_OK(answer);
  node.Remember(answer->container_id());
  return answer->container_id();
}

std::string OnNode::Running(const std::string& pod, const cri::PodSandboxConfig& pod_config,
                            const cri::ContainerConfig& config) {
  const std::string id = Created(pod, pod_config, config);
  REQUIRE_OK(cri.Start(id));
  return id;
}

std::string OnNode::Sleeper(const std::string& name) {
  const auto pod_config = node.PodConfig(name, true);
  const std::string pod = Pod(pod_config);
  return Running(pod, pod_config, node.ContainerConfig("sleeper", {"sleep", "1000"}));
}

cri::ContainerStatus OnNode::StatusOf(const std::string& container) const {
  const auto answer = cri.ContainerStatus(container);
  REQUIRE_OK(answer);
  return answer->status();
}

cri::ContainerStatus OnNode::Exited(const std::string& container) const {
  const bool exited = Eventually(
      [&] { return StatusOf(container).state() == cri::ContainerState::CONTAINER_EXITED; });
  CHECK(exited);
  return StatusOf(container);
}

std::string OnNode::Log(const cri::PodSandboxConfig& pod, const cri::ContainerConfig& config,
                        const std::string& text) const {
  std::string log;
  Eventually([&] {
    log = os::ReadFile(Node::LogPath(pod, config)).value_or(std::string());
    return log.find(text) != std::string::npos;
  });
  return log;
}

}  // namespace crisp::harness
