#include "services/crid/core/validate.h"

using namespace crisp;
using namespace crisp::crid;

namespace {

runtime::v1::RunPodSandboxRequest GoodPod() {
  runtime::v1::RunPodSandboxRequest request;
  auto* metadata = request.mutable_config()->mutable_metadata();
  metadata->set_name("pod");
  metadata->set_namespace_("default");
  metadata->set_uid("uid");
  return request;
}

runtime::v1::CreateContainerRequest GoodContainer() {
  runtime::v1::CreateContainerRequest request;
  request.mutable_config()->mutable_metadata()->set_name("c");
  request.mutable_config()->mutable_image()->set_image("busybox");
  return request;
}

void Refused(const Status& status, const std::string& field, Code code = Code::kInvalidArgument) {
  INFO(status.ToString());
  CHECK(status.code() == code);
  CHECK(status.message().find(field) != std::string::npos);
}

}  // namespace

TEST_CASE("A pod with nothing but its metadata is fine") { CHECK(Validate(GoodPod()).ok()); }

TEST_CASE("What is wrong with a pod is told with the field's name") {
  Refused(Validate(runtime::v1::RunPodSandboxRequest()), "config");
  auto pod = GoodPod();
  pod.mutable_config()->clear_metadata();
  Refused(Validate(pod), "config.metadata");
  pod = GoodPod();
  pod.mutable_config()->mutable_metadata()->clear_name();
  Refused(Validate(pod), "config.metadata.name");
  pod = GoodPod();
  pod.mutable_config()->mutable_metadata()->clear_namespace_();
  Refused(Validate(pod), "config.metadata.namespace");
  pod = GoodPod();
  pod.mutable_config()->mutable_metadata()->clear_uid();
  Refused(Validate(pod), "config.metadata.uid");
  pod = GoodPod();
  pod.mutable_config()->set_log_directory("relative");
  Refused(Validate(pod), "config.log_directory");
  pod.mutable_config()->set_log_directory("/var/../etc");
  Refused(Validate(pod), "config.log_directory");
  pod.mutable_config()->set_log_directory("/var/log/..hidden");
  CHECK(Validate(pod).ok());
  pod.mutable_config()->set_hostname(std::string(64, 'h'));
  Refused(Validate(pod), "hostname");
  pod.mutable_config()->set_hostname("bad host");
  Refused(Validate(pod), "hostname");
  pod = GoodPod();
  pod.mutable_config()->add_port_mappings()->set_protocol(static_cast<runtime::v1::Protocol>(7));
  Refused(Validate(pod), "config: port_mappings[0].protocol");
  pod = GoodPod();
  pod.mutable_config()->add_port_mappings()->set_host_port(70'000);
  Refused(Validate(pod), "port_mappings[0].host_port");
  pod = GoodPod();
  pod.mutable_config()->mutable_windows();
  Refused(Validate(pod), "config.windows");
  pod = GoodPod();
  pod.mutable_config()->mutable_linux()->set_cgroup_parent("/kubepods/../../x");
  Refused(Validate(pod), "cgroup_parent");
  pod = GoodPod();
  pod.mutable_config()->mutable_dns_config()->add_servers("10.0.0.1\nnameserver 10.0.0.2");
  Refused(Validate(pod), "config: dns_config.servers");
  pod = GoodPod();
  pod.mutable_config()->mutable_dns_config()->add_searches("a\tb");
  Refused(Validate(pod), "dns_config.searches");
}

TEST_CASE("What is wrong with a container is told with the field's name") {
  CHECK(Validate(GoodContainer()).ok());
  Refused(Validate(runtime::v1::CreateContainerRequest()), "config");
  auto container = GoodContainer();
  container.mutable_config()->mutable_metadata()->clear_name();
  Refused(Validate(container), "config.metadata.name");
  container = GoodContainer();
  container.mutable_config()->clear_image();
  Refused(Validate(container), "config.image.image");
  container = GoodContainer();
  container.mutable_config()->set_log_path("/abs");
  Refused(Validate(container), "config.log_path");
  container.mutable_config()->set_log_path("a/../../b");
  Refused(Validate(container), "config.log_path");
  container = GoodContainer();
  container.mutable_config()->mutable_windows();
  Refused(Validate(container), "config.windows");
  container = GoodContainer();
  container.mutable_config()->add_mounts();
  Refused(Validate(container), "config.mounts[0].container_path");
  container = GoodContainer();
  auto& namespaces = *container.mutable_config()
                          ->mutable_linux()
                          ->mutable_security_context()
                          ->mutable_namespace_options();
  namespaces.set_target_id("a");
  Refused(Validate(container), "namespace_options.target_id");
  namespaces.set_pid(runtime::v1::TARGET);
  CHECK(Validate(container).ok());
}
