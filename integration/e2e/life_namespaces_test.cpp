#include "integration/e2e/shared_node.h"

namespace crisp::harness {
namespace {

using cri::NamespaceMode;

cri::ContainerConfig InPids(OnNode& on, const std::string& name, NamespaceMode mode,
                            const std::string& target = "") {
  auto config = on.node.ContainerConfig(name, {"sleep", "1000"});
  auto* namespaces =
      config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  namespaces->set_pid(mode);
  namespaces->set_target_id(target);
  return config;
}

std::string NamespaceOf(const OnNode& on, const std::string& container, const std::string& kind) {
  return on.cri.ExecSync(container, {"readlink", "/proc/self/ns/" + kind})->stdout();
}

TEST_CASE("A container joins the PID namespace of its target, and goes with it") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("target", true);
  const std::string pod = on.Pod(pod_config);
  const std::string app = on.Running(pod, pod_config, InPids(on, "app", NamespaceMode::CONTAINER));
  const std::string debug =
      on.Running(pod, pod_config, InPids(on, "debug", NamespaceMode::TARGET, app));
  const std::string other =
      on.Running(pod, pod_config, InPids(on, "other", NamespaceMode::CONTAINER));
  CHECK(NamespaceOf(on, app, "pid") == NamespaceOf(on, debug, "pid"));
  CHECK(NamespaceOf(on, app, "pid") != NamespaceOf(on, other, "pid"));
  CHECK(NamespaceOf(on, app, "mnt") != NamespaceOf(on, debug, "mnt"));
  // Its own end is only its own.
  REQUIRE_OK(on.cri.Stop(debug, 0));
  CHECK(on.StatusOf(app).state() == cri::ContainerState::CONTAINER_RUNNING);
  // As everywhere, the beginning of its id will do.
  const std::string second =
      on.Running(pod, pod_config, InPids(on, "second", NamespaceMode::TARGET, app.substr(0, 13)));
  REQUIRE_OK(on.cri.Stop(app, 0));
  CHECK(on.Exited(second).exit_code() == 137);

  const auto refused = [&](const cri::ContainerConfig& config) {
    const auto answer = on.cri.Create(pod, config, pod_config);
    INFO(answer.message());
    CHECK(answer.message().find("target_id") != std::string::npos);
    return answer.code();
  };
  CHECK(refused(InPids(on, "late", NamespaceMode::TARGET, app)) ==
        grpc::StatusCode::FAILED_PRECONDITION);
  CHECK(refused(InPids(on, "none", NamespaceMode::TARGET, std::string(64, 'a'))) ==
        grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(refused(InPids(on, "empty", NamespaceMode::TARGET)) == grpc::StatusCode::INVALID_ARGUMENT);
  // Nor another pod's.
  const auto strange_config = on.node.PodConfig("strange", true);
  const std::string strange = on.Pod(strange_config);
  const std::string far =
      on.Running(strange, strange_config, InPids(on, "far", NamespaceMode::CONTAINER));
  CHECK(refused(InPids(on, "thief", NamespaceMode::TARGET, far)) ==
        grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_CASE("Who says nothing of namespaces gets what the CRI gives: PIDs that the pod shares") {
  OnNode on;
  auto pod_config = on.node.PodConfig("silent", false);
  pod_config.mutable_linux()->clear_security_context();
  const std::string pod = on.Pod(pod_config);
  const auto silent = [&](const std::string& name) {
    auto config = on.node.ContainerConfig(name, {"sleep", "1000"});
    config.clear_linux();
    return on.Running(pod, pod_config, config);
  };
  const std::string one = silent("one");
  const std::string two = silent("two");
  CHECK(NamespaceOf(on, one, "pid") == NamespaceOf(on, two, "pid"));
  // Not a PID 1, for which the kernel would drop the signal.
  REQUIRE_OK(on.cri.Stop(one, 60));
  CHECK(on.StatusOf(one).exit_code() == 143);
}

TEST_CASE("Network and ipc are the pod's or the host's; nothing else is taken for them") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("modes", false);
  const std::string pod = on.Pod(pod_config);
  const std::string one = on.Running(pod, pod_config, InPids(on, "one", NamespaceMode::CONTAINER));
  const std::string two = on.Running(pod, pod_config, InPids(on, "two", NamespaceMode::CONTAINER));
  auto host_config = on.node.PodConfig("host", true);
  host_config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_ipc(
      NamespaceMode::NODE);
  const std::string host_pod = on.Pod(host_config);
  const std::string host =
      on.Running(host_pod, host_config, InPids(on, "host", NamespaceMode::CONTAINER));
  for (const std::string kind : {"net", "ipc", "uts"}) {
    CHECK(NamespaceOf(on, one, kind) == NamespaceOf(on, two, kind));
    CHECK(NamespaceOf(on, one, kind) != NamespaceOf(on, host, kind));
  }
  for (const auto mode : {NamespaceMode::CONTAINER, NamespaceMode::TARGET}) {
    auto bad = on.node.PodConfig("bad", false);
    auto* namespaces = bad.mutable_linux()->mutable_security_context()->mutable_namespace_options();
    namespaces->set_ipc(mode);
    CHECK(on.cri.RunPod(bad).code() == grpc::StatusCode::INVALID_ARGUMENT);
    namespaces->set_ipc(NamespaceMode::POD);
    namespaces->set_network(mode);
    CHECK(on.cri.RunPod(bad).code() == grpc::StatusCode::INVALID_ARGUMENT);
  }
  // Nor can a container have others than its pod.
  using Options = cri::NamespaceOption;
  const auto refused = [&](const std::string& field, void (Options::*set)(NamespaceMode)) {
    auto config = InPids(on, "other" + field, NamespaceMode::CONTAINER);
    (config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->*set)(
        NamespaceMode::NODE);
    const auto answer = on.cri.Create(pod, config, pod_config);
    INFO(answer.message());
    CHECK(answer.message().find("namespace_options." + field) != std::string::npos);
    return answer.code() == grpc::StatusCode::INVALID_ARGUMENT;
  };
  CHECK(refused("network", &Options::set_network));
  CHECK(refused("ipc", &Options::set_ipc));
}

TEST_CASE("Handlers come in a stable order, the default one first, with features that are there") {
  OnNode on;
  const auto handlers = on.cri.Status()->runtime_handlers();
  REQUIRE(handlers.size() >= 2);
  CHECK(handlers[0].name().empty());
  std::string last;
  const cri::RuntimeHandler* runc = nullptr;
  for (int i = 1; i < handlers.size(); ++i) {
    CHECK(handlers[i].name() > last);
    last = handlers[i].name();
    if (last == "runc") runc = &handlers[i];
  }
  REQUIRE(runc != nullptr);
  CHECK(runc->features().SerializeAsString() == handlers[0].features().SerializeAsString());
  CHECK(runc->features().recursive_read_only_mounts());
  const auto features = on.cri.Status()->features();
  CHECK(features.supplemental_groups_policy());
  CHECK(features.mount_options());
  CHECK_FALSE(features.user_namespaces_host_network());
}

}  // namespace
}  // namespace crisp::harness
