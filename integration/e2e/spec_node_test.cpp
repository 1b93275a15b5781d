#include <sys/sysmacros.h>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"
#include "libs/testing/test_root.h"

namespace crisp::harness {
namespace {

/// What comes from the node's own settings and directories: a node of its own.
struct OwnNode {
  OwnNode()
      : node(
            {.yaml =
                 "rund:\n  cdi_spec_dirs: [" + (root / "cdi") + "]\n  hooks_dirs: [" +
                 (root / "hooks") +
                 "]\n  default_env: [\"NODE=yes\", \"TWICE=node\"]\n"
                 "  default_umask: \"0027\"\n"
                 "  default_sysctls: [\"kernel.shm_rmid_forced=1\", \"net.core.somaxconn=321\"]\n"
                 "  default_ulimits: [\"nofile=123:456\"]\n"
                 "  additional_devices: [\"/dev/full:/dev/fuller:r\"]\n"
                 "  device_ownership_from_security_context: true\n"
                 "  absent_mount_sources_to_reject: [" +
                 (root / "never") + "]\n  blockio_config_file: " +
                 root.Write("blockio.yaml",
                            "Classes: {slow: [{Devices: [/dev/loop0], ThrottleReadBps: 1Mi}]}") +
                 "\n  allowed_devices: [/dev/full]\n  runtimes:\n    kata: {path: "
                 "/usr/bin/kata-runtime, type: vm}\n    willing:\n      path: /usr/bin/runc\n      "
                 "allowed_annotations: [io.kubernetes.cri-o., umask.crio.io]\n    based:\n   "
                 "   path: /usr/bin/runc\n      base_spec: " +
                 root.Write(
                     "base.json",
                     R"({"process":{"env":["BASE=1"]},"linux":{"maskedPaths":["/proc/version"]}})") +
                 "\n"}),
        cri(node.cri()) {}
  ~OwnNode() {
    const std::vector<std::string> left = node.CleanUp();
    for (const std::string& line : left) UNSCOPED_INFO(line);
    CHECK(left.empty());
  }
  std::string Pod(const ::runtime::v1::PodSandboxConfig& config, const std::string& handler = "") {
    const auto answer = cri.RunPod(config, handler);
    REQUIRE_OK(answer);
    node.Remember(answer->pod_sandbox_id());
    return answer->pod_sandbox_id();
  }
  std::string Run(const std::string& pod, const ::runtime::v1::PodSandboxConfig& pod_config,
                  const ::runtime::v1::ContainerConfig& config) {
    const auto created = cri.Create(pod, config, pod_config);
    REQUIRE_OK(created);
    node.Remember(created->container_id());
    REQUIRE_OK(cri.Start(created->container_id()));
    return created->container_id();
  }
  std::string Out(const std::string& id, const std::string& script) const {
    const auto ran = cri.ExecSync(id, {"sh", "-c", script});
    REQUIRE_OK(ran);
    return ran->stdout() + ran->stderr();
  }

  testing::TestRoot root;
  Node node;
  const Cri& cri;
};

TEST_CASE("Block I/O is limited by the class that an annotation names") {
  OwnNode test;
  auto pod_config = test.node.PodConfig("blockio", true);
  auto& annotations = *pod_config.mutable_annotations();
  annotations["blockio.resources.beta.kubernetes.io/container.limited"] = "slow";
  annotations["blockio.resources.beta.kubernetes.io/container.wrong"] = "slower";
  const std::string pod = test.Pod(pod_config);
  const auto limits = [&](const std::string& name) {
    const std::string id =
        test.Run(pod, pod_config, test.node.ContainerConfig(name, {"sleep", "1000"}));
    return os::ReadFile("/sys/fs/cgroup/blkio" + pod_config.linux().cgroup_parent() + "/crisp-" +
                        id + "/blkio.throttle.read_bps_device")
        .value();
  };
  CHECK(limits("limited") == "7:0 1048576\n");
  CHECK(limits("free").empty());
  const auto wrong = test.cri.Create(pod, test.node.ContainerConfig("wrong", {"true"}), pod_config);
  CHECK(wrong.code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(wrong.message().find("\"slower\"") != std::string::npos);
}

TEST_CASE("What pods ask for by annotation they get from a handler that allows it") {
  OwnNode test;
  auto pod_config = test.node.PodConfig("asks", true);
  auto& annotations = *pod_config.mutable_annotations();
  annotations["umask.crio.io"] = "0070";
  annotations["io.kubernetes.cri-o.ShmSize"] = "3Mi";
  annotations["io.kubernetes.cri-o.Devices"] = "/dev/full:/dev/fullest:r";
  const auto container = [&](const std::string& name) {
    return test.node.ContainerConfig(
        name, {"sh", "-c", "umask > /tmp/new; mv /tmp/new /tmp/umask; sleep 1000"});
  };
  const auto given = [&](const std::string& id) {
    return test.Out(id,
                    "until [ -e /tmp/umask ]; do usleep 1000; done; cat /tmp/umask; "
                    "df -k /dev/shm | awk 'END {print $2}'; ls /dev/fullest 2>/dev/null");
  };
  const std::string willing = test.Pod(pod_config, "willing");
  CHECK(given(test.Run(willing, pod_config, container("asks"))) == "0070\n3072\n/dev/fullest\n");

  // Of the node, whatever the handler allows.
  auto config = container("kmsg");
  (*config.mutable_annotations())["io.kubernetes.cri-o.Devices"] = "/dev/kmsg";
  const auto refused = test.cri.Create(willing, config, pod_config);
  CHECK(refused.code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(refused.message().find("rund.allowed_devices has no /dev/kmsg") != std::string::npos);
  config = container("rdt");
  (*config.mutable_annotations())["io.kubernetes.cri.rdt-class"] = "gold";
  const auto rdt = test.cri.Create(willing, config, pod_config);
  CHECK(rdt.code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(rdt.message().find("RDT class \"gold\"") != std::string::npos);

  pod_config.mutable_metadata()->set_name("asks-in-vain");
  const std::string usual = test.Pod(pod_config);
  CHECK(given(test.Run(usual, pod_config, container("vain"))) == "0027\n65536\n");
  annotations["io.kubernetes.cri-o.ShmSize"] = "none";
  pod_config.mutable_metadata()->set_name("asks-nonsense");
  const auto nonsense = test.cri.RunPod(pod_config, "willing");
  CHECK(nonsense.code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(nonsense.message().find("annotation io.kubernetes.cri-o.ShmSize") != std::string::npos);
}

TEST_CASE("A handler of type vm is answered with a clear not yet") {
  OwnNode test;
  const auto answer = test.cri.RunPod(test.node.PodConfig("vm", true), "kata");
  CHECK(answer.code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(answer.message().find("'kata'") != std::string::npos);
  CHECK(answer.message().find("does not speak yet") != std::string::npos);
}

TEST_CASE("The node's settings, CDI devices, hooks and base spec reach containers") {
  OwnNode test;
  auto pod_config = test.node.PodConfig("node");
  const std::string pod = test.Pod(pod_config);
  const auto sleep = [&test](const std::string& name) {
    return test.node.ContainerConfig(name, {"sleep", "1000"});
  };

  // A command that is run later has the umask of the runtime's exec, and may have its soft limit.
  auto config =
      test.node.ContainerConfig("defaults", {"sh", "-c",
                                             "(umask; ulimit -n; ulimit -Hn) > /dev/shm/new; mv "
                                             "/dev/shm/new /dev/shm/umask; sleep 1000"});
  auto& twice = *config.add_envs();
  twice.set_key("TWICE");
  twice.set_value("pod");
  auto& device = *config.add_devices();
  device.set_host_path("/dev/zero");
  device.set_container_path("/dev/nothing");
  device.set_permissions("rw");
  config.mutable_linux()->mutable_security_context()->mutable_run_as_user()->set_value(1000);
  config.mutable_linux()->mutable_security_context()->mutable_run_as_group()->set_value(2000);
  std::string id = test.Run(pod, pod_config, config);
  CHECK(test.Out(id, "until [ -e /dev/shm/umask ]; do usleep 1000; done; cat /dev/shm/umask") ==
        "0027\n123\n456\n");
  CHECK(test.Out(id, "echo $NODE $TWICE") == "yes pod\n");
  CHECK(test.Out(id, "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/core/somaxconn") ==
        "1\n321\n");
  CHECK(test.Out(id, "stat -c '%t:%T %u:%g' /dev/nothing /dev/fuller") ==
        "1:5 1000:2000\n1:7 1000:2000\n");
  CHECK(test.Out(id, "head -c 1 /dev/nothing | wc -c") == "1\n");

  // CDI: unknown, described meanwhile, used.
  config = sleep("cdi");
  (*config.mutable_annotations())["cdi.k8s.io/test"] = "crisp.test/device=one";
  const auto unknown = test.cri.Create(pod, config, pod_config);
  CHECK(unknown.message().find("crisp.test/device=one") != std::string::npos);
  test.root.Write("cdi/test.yaml", R"(
cdiVersion: 0.6.0
kind: crisp.test/device
containerEdits: {env: ["COMMON=1"]}
devices:
- name: one
  containerEdits:
    env: ["ONE=1"]
    deviceNodes: [{path: /dev/one, hostPath: /dev/zero}]
    mounts: [{hostPath: )" + test.root.Write("from-cdi", "text") +
                                       R"(, containerPath: /from-cdi, options: [ro]}]
)");
  id = test.Run(pod, pod_config, config);
  CHECK(test.Out(id, "echo $COMMON$ONE; cat /from-cdi; head -c 1 /dev/one | wc -c") ==
        "11\ntext1\n");

  // A hook runs for those that it is for; an absent path on the list is not made.
  const std::string ran = test.root / "hook-ran";
  test.root.Write(
      "hooks/touch.json",
      R"({"version":"1.0.0","hook":{"path":"/bin/touch","args":["touch",")" + ran +
          R"("]},"when":{"annotations":{"^run-hook$":"^yes$"}},"stages":["prestart"]})");
  test.Run(pod, pod_config, sleep("without-hook"));
  CHECK_FALSE(os::Exists(ran));
  config = sleep("with-hook");
  (*config.mutable_annotations())["run-hook"] = "yes";
  test.Run(pod, pod_config, config);
  CHECK(os::Exists(ran));
  config = sleep("never");
  config.add_mounts()->set_host_path(test.root / "never");
  config.mutable_mounts(0)->set_container_path("/x");
  CHECK_FALSE(test.cri.Create(pod, config, pod_config).ok());
  CHECK_FALSE(os::Exists(test.root / "never"));

  pod_config = test.node.PodConfig("based", true);
  const std::string based = test.Pod(pod_config, "based");
  id = test.Run(based, pod_config, sleep("based"));
  CHECK(test.Out(id, "echo $BASE; cat /proc/version") == "1\n");
}

}  // namespace
}  // namespace crisp::harness
