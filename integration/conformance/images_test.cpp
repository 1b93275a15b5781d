#include <catch2/catch.hpp>

#include "integration/harness/node.h"
#include "integration/harness/require.h"
#include "libs/os/files.h"

// What integration/conformance/run does before critest has its turn.

namespace crisp::harness {
namespace {

constexpr const char* kImages = CRISP_SOURCE_DIR "/integration/conformance/images";

/// A node with the stand-in images in its registry, led there by their public names.
class NodeWithImages {
 public:
  NodeWithImages() {
    const Ran made = node_.Inside({kImages, node_.registry(), node_.dir() + "/etc/registries.conf"},
                                  std::chrono::seconds(120));
    INFO(made.err);
    REQUIRE(made.code == 0);
  }

  const Cri& cri() const { return node_.cri(); }
  /// The image's id.
  std::string Pull(const std::string& image) const {
    const auto pulled = cri().Pull(image);
    REQUIRE_OK(pulled);
    return pulled->image_ref();
  }
  /// A container of the image, started: its id. `log`: where its log is.
  std::string Start(const std::string& image, const std::vector<std::string>& command,
                    const cri::LinuxContainerSecurityContext& security, std::string* log) {
    const auto pod_config = node_.PodConfig("stand-in", /*host_network=*/true);
    const auto pod = cri().RunPod(pod_config);
    REQUIRE_OK(pod);
    auto config = node_.ContainerConfig("c", command);
    config.mutable_image()->set_image(image);
    config.mutable_linux()->mutable_security_context()->MergeFrom(security);
    const auto container = cri().Create(pod->pod_sandbox_id(), config, pod_config);
    REQUIRE_OK(container);
    REQUIRE_OK(cri().Start(container->container_id()));
    if (log != nullptr) *log = Node::LogPath(pod_config, config);
    return container->container_id();
  }

 private:
  Node node_;
};

TEST_CASE("The suite's images come under their public names from a registry on loopback") {
  NodeWithImages node;
  // One image under two registries.
  CHECK(node.Pull("registry.k8s.io/pause:3.9") == node.Pull("k8s.gcr.io/pause:3.9"));

  // A set-user-ID program that somebody else starts.
  const std::string privileges = "registry.k8s.io/e2e-test-images/nonewprivs:1.3";
  node.Pull(privileges);
  cri::LinuxContainerSecurityContext somebody;
  somebody.mutable_run_as_user()->set_value(1000);
  std::string log;
  node.Start(privileges, {}, somebody, &log);
  CHECK(Eventually([&] {
    return os::ReadFile(log).value_or("").find("Effective uid: 0\n") != std::string::npos;
  }));

  // A shell that executes files, so that it finds one masked.
  const std::string busybox = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
  node.Pull(busybox);
  cri::LinuxContainerSecurityContext masked;
  masked.add_masked_paths("/bin/ls");
  const std::string id = node.Start(busybox, {"sh", "-c", "top"}, masked, nullptr);
  const auto listed = node.cri().ExecSync(id, {"/bin/sh", "-c", "ls"});
  REQUIRE_OK(listed);
  CHECK(listed->stderr() == "/bin/sh: ls: Permission denied\n");
  const auto echoed = node.cri().ExecSync(id, {"/bin/sh", "-c", "echo a b"});
  REQUIRE_OK(echoed);
  CHECK(echoed->stdout() == "a b\n");
}

}  // namespace
}  // namespace crisp::harness
