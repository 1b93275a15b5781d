#include <algorithm>
#include <set>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using Runtime = cri::RuntimeService::StubInterface;
using Image = cri::ImageService::StubInterface;

TEST_CASE("Version is what the kubelet wants to hear") {
  OnNode on;
  const auto version = on.cri.Version();
  REQUIRE_OK(version);
  CHECK(version->version() == "0.1.0");
  CHECK(version->runtime_name() == "crisp");
  CHECK(version->runtime_api_version() == "v1");
  CHECK(std::count(version->runtime_version().begin(), version->runtime_version().end(), '.') == 2);
}

TEST_CASE("Status has both conditions and the default handler") {
  OnNode on;
  on.node.WaitReady();
  const auto status = on.cri.Status(true);
  REQUIRE_OK(status);
  std::set<std::string> types;
  for (const auto& condition : status->status().conditions()) {
    CHECK(condition.status());
    types.insert(condition.type());
  }
  CHECK(types.contains("RuntimeReady"));
  CHECK(types.contains("NetworkReady"));
  std::set<std::string> handlers;
  for (const auto& handler : status->runtime_handlers()) handlers.insert(handler.name());
  CHECK(handlers.contains(""));
  CHECK(handlers.contains("runc"));
  CHECK(std::ssize(handlers) == status->runtime_handlers_size());
  CHECK_FALSE(status->info().empty());
}

TEST_CASE("RuntimeConfig names the cgroup driver; UpdateRuntimeConfig is taken") {
  OnNode on;
  const auto config = on.cri.Call(&Runtime::RuntimeConfig, cri::RuntimeConfigRequest());
  REQUIRE_OK(config);
  CHECK(config->linux().cgroup_driver() == cri::CgroupDriver::CGROUPFS);
  cri::UpdateRuntimeConfigRequest update;
  update.mutable_runtime_config()->mutable_network_config()->set_pod_cidr("10.9.0.0/24");
  REQUIRE_OK(on.cri.Call(&Runtime::UpdateRuntimeConfig, update));
}

template <typename Stub, typename Request, typename Response>
void CheckUnimplemented(const Cri& cri,
                        grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                     Response*),
                        const Request& request) {
  const auto answer = cri.Call(method, request);
  INFO(Describe(answer.status));
  CHECK(answer.code() == grpc::StatusCode::UNIMPLEMENTED);
  CHECK(answer.message().find("cannot be") != std::string::npos);
}

TEST_CASE("What is not there yet says so in a sentence") {
  OnNode on;
  CheckUnimplemented(on.cri, &Runtime::CheckpointPod, cri::CheckpointPodRequest());
  CheckUnimplemented(on.cri, &Runtime::RestorePod, cri::RestorePodRequest());
}

TEST_CASE("A container is checkpointed, or goes on and the answer says why it is not") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("checkpoint", true);
  const std::string pod = on.Pod(pod_config);
  const std::string id =
      on.Running(pod, pod_config, on.node.ContainerConfig("c", {"sleep", "1000"}));
  const std::string dir = on.node.dir() + "/checkpoints";
  REQUIRE(os::MakeDirs(dir).ok());
  cri::CheckpointContainerRequest request;
  request.set_container_id(id);
  request.set_location(dir + "/a.tar");
  const auto answer = on.cri.Call(&Runtime::CheckpointContainer, request);
  INFO(Describe(answer.status));
  if (answer.ok()) {
    CHECK(os::ListDir(dir).value() == std::vector<std::string>{"a.tar"});
  } else {
    // There is no criu, or it does not know this kernel.
    const bool without = answer.message().find("there is no program criu") != std::string::npos;
    const bool refused = answer.message().find("CRIU: ") != std::string::npos;
    CHECK(answer.code() ==
          (without ? grpc::StatusCode::UNIMPLEMENTED : grpc::StatusCode::FAILED_PRECONDITION));
    CHECK((without || refused));
    CHECK(os::ListDir(dir).value().empty());
  }
  CHECK(on.cri.ExecSync(id, {"echo", "up"}, 10)->stdout() == "up\n");
  request.set_location("a.tar");
  CHECK(on.cri.Call(&Runtime::CheckpointContainer, request).code() ==
        grpc::StatusCode::INVALID_ARGUMENT);
  request.set_container_id(std::string(64, 'e'));
  CHECK(on.cri.Call(&Runtime::CheckpointContainer, request).code() == grpc::StatusCode::NOT_FOUND);
  // The nodes of the tests restore none.
  auto config = on.node.ContainerConfig("d", {});
  config.mutable_image()->set_image(dir + "/a.tar");
  const auto created = on.cri.Create(pod, config, pod_config);
  CHECK(created.code() == grpc::StatusCode::FAILED_PRECONDITION);
  CHECK(created.message().find("rund.restore_checkpoints") != std::string::npos);
}

TEST_CASE("Verbose status gives JSON under the keys that tools read") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("verbose", true);
  const std::string pod = on.Pod(pod_config);
  const std::string id =
      on.Running(pod, pod_config, on.node.ContainerConfig("c", {"sleep", "1000"}));
  const auto container = on.cri.ContainerStatus(id, true);
  REQUIRE_OK(container);
  REQUIRE(container->info().contains("info"));
  const auto info = nlohmann::json::parse(container->info().at("info"));
  CHECK(info.contains("pid"));
  CHECK(info.contains("runtimeSpec"));
  CHECK(info.value("sandboxID", "") == pod);
  CHECK_FALSE(on.cri.PodStatus(pod, true)->info().empty());
  CHECK_FALSE(on.cri.ImageStatus(on.node.Busybox(), true)->info().empty());
  CHECK(on.cri.ContainerStatus(id)->info().empty());
}

}  // namespace
}  // namespace crisp::harness
