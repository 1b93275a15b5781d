// Pods and containers under the node's own systemd: what they see, and how they end.
#include "integration/vm/vm_node.h"

namespace crisp::harness {
namespace {

using std::chrono::seconds;
using Runtime = cri::RuntimeService::StubInterface;

TEST_CASE("The kubelet is told which cgroup driver is in force", "[short]") {
  Vm vm;
  const auto answer = vm.cri.Call(&Runtime::RuntimeConfig, cri::RuntimeConfigRequest());
  REQUIRE_OK(answer);
  CHECK(answer->linux().cgroup_driver() == (Vm::systemd() ? cri::SYSTEMD : cri::CGROUPFS));
}

TEST_CASE("A cgroup parent of the other driver is refused by its name") {
  Vm vm;
  auto config = vm.PodConfig("parent");
  const std::string good = config.linux().cgroup_parent();
  const auto refused = [&](const std::string& parent) {
    config.mutable_linux()->set_cgroup_parent(parent);
    const auto answer = vm.cri.RunPod(config, Vm::handler());
    INFO(parent << ": " << answer.message());
    CHECK(answer.code() == grpc::StatusCode::INVALID_ARGUMENT);
    CHECK(answer.message().find("linux.cgroup_parent") != std::string::npos);
    CHECK(answer.message().find(parent) != std::string::npos);
  };
  if (Vm::systemd()) {
    refused("/kubepods/burstable/podx");
    refused("kubepods-/bad.slice");
    refused("/kubepods.slice/kubepods-x-y.slice");
    // Its name alone is enough.
    config.mutable_linux()->set_cgroup_parent(good.substr(good.rfind('/') + 1));
  } else {
    refused("kubepods-burstable-podx.slice");
    refused("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice");
    config.mutable_linux()->set_cgroup_parent(good);
  }
  const std::string pod = vm.Pod(config);
  const std::string id = vm.Running(pod, config, vm.ContainerConfig({"sleep", "1000"}));
  CHECK(vm.CgroupDir(id).starts_with("/sys/fs/cgroup" + good + "/"));
}

TEST_CASE("Devices that a container may not have are not opened, whatever it can make") {
  Vm vm;
  const auto pod_config = vm.PodConfig("devices");
  const std::string pod = vm.Pod(pod_config);
  const std::string id = [&] {
    auto config = vm.ContainerConfig({"sleep", "1000"});
    config.mutable_linux()
        ->mutable_security_context()
        ->mutable_capabilities()
        ->add_add_capabilities("MKNOD");
    return vm.Running(pod, pod_config, config);
  }();
  CHECK(vm.Said(id, "mknod /disk b 259 0 && ! head -c 1 /disk > /got 2> /why; cat /why /got") ==
        "head: /disk: Operation not permitted");
  CHECK(vm.Said(id, "head -c 3 /dev/zero | wc -c; echo x > /dev/null") == "3");

  auto config = vm.ContainerConfig({"sleep", "1000"});
  config.mutable_metadata()->set_name("d");
  auto* device = config.add_devices();
  device->set_host_path("/dev/nvme0n1");
  device->set_container_path("/dev/disk");
  device->set_permissions("r");
  const std::string with = vm.Running(pod, pod_config, config);
  CHECK(vm.Said(with, "head -c 3 /dev/disk | wc -c; ! echo x > /dev/disk") == "3");
}

TEST_CASE("The default AppArmor profile is loaded, and holds", "[short]") {
  Vm vm;
  const auto pod_config = vm.PodConfig("apparmor");
  const std::string pod = vm.Pod(pod_config);
  auto config = vm.ContainerConfig({"sleep", "1000"});
  auto* security = config.mutable_linux()->mutable_security_context();
  security->mutable_capabilities()->add_add_capabilities("SYS_ADMIN");
  security->mutable_apparmor()->set_profile_type(cri::SecurityProfile::RuntimeDefault);
  const std::string id = vm.Running(pod, pod_config, config);
  CHECK(vm.Said(id, "cat /proc/1/attr/current; cat /proc/self/attr/current") ==
        "crisp-default (enforce)\ncrisp-default (enforce)");
  CHECK(vm.Said(id, "mkdir /m; ! mount -t tmpfs none /m 2>&1").find("denied") != std::string::npos);

  config.mutable_metadata()->set_name("free");
  security->mutable_apparmor()->set_profile_type(cri::SecurityProfile::Unconfined);
  const std::string free = vm.Running(pod, pod_config, config);
  CHECK(vm.Said(free, "cat /proc/self/attr/current") == "unconfined");
  CHECK(vm.Said(free, "mkdir /m; mount -t tmpfs none /m; grep -c ' /m ' /proc/mounts") == "1");
}

TEST_CASE("Stopping a container ends all that it started, also in the node's PID namespace") {
  Vm vm;
  auto pod_config = vm.PodConfig("kill");
  auto* options =
      pod_config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  options->set_pid(cri::NamespaceMode::NODE);
  const std::string pod = vm.Pod(pod_config);
  auto config = vm.ContainerConfig(
      {"sh", "-c", "for i in 1 2 3; do setsid sleep 54321 & done; trap '' TERM; sleep 54321"});
  config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
      cri::NamespaceMode::NODE);
  const std::string id = vm.Running(pod, pod_config, config);
  const auto sleepers = [] { return Sh("pgrep -fc '^sleep 54321' || true"); };
  CHECK(Eventually([&] { return sleepers() == "4"; }, seconds(20)));
  REQUIRE_OK(vm.cri.Stop(id, 1));
  CHECK(Eventually([&] { return sleepers() == "0"; }, seconds(20)));
  CHECK(vm.StatusOf(id).exit_code() == 137);
  CHECK(vm.StatusOf(id).reason() == "Error");
}

TEST_CASE("A pod with a shared PID namespace has a process of its own, in the pod's cgroup") {
  Vm vm;
  auto pod_config = vm.PodConfig("shared");
  pod_config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
      cri::NamespaceMode::POD);
  const std::string pod = vm.Pod(pod_config);
  auto config = vm.ContainerConfig({"sleep", "1000"});
  config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
      cri::NamespaceMode::POD);
  const std::string id = vm.Running(pod, pod_config, config);
  CHECK(vm.Said(id, "cat /proc/1/comm") == "crisp-pause");
  const std::string pause = Sh("pgrep -x crisp-pause");
  CHECK(FileText("/proc/" + pause + "/cgroup")
            .starts_with("0::" + pod_config.linux().cgroup_parent() + "/crisp-pause-" + pod));
  Sh("systemctl daemon-reload");
  CHECK(vm.Said(id, "cat /proc/1/comm") == "crisp-pause");
}

TEST_CASE("Pods have networks under systemd too") {
  Vm vm;
  auto pod_config = vm.PodConfig("net");
  pod_config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_network(
      cri::NamespaceMode::POD);
  const std::string pod = vm.Pod(pod_config);
  auto config = vm.ContainerConfig({"sleep", "1000"});
  config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_network(
      cri::NamespaceMode::POD);
  const std::string id = vm.Running(pod, pod_config, config);
  const std::string ip = vm.cri.PodStatus(pod)->status().network().ip();
  CHECK(ip.starts_with("10.85."));
  CHECK(vm.Said(id, "ip addr show eth0 | grep -c ' " + ip + "/'") == "1");
  Sh("ping -c 1 -W 20 " + ip + " 2>&1 || busybox ping -c 1 -W 20 " + ip);
}

TEST_CASE("A pod with a user namespace") {
  Vm vm;
  auto pod_config = vm.PodConfig("users");
  auto* options =
      pod_config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  options->set_network(cri::NamespaceMode::POD);
  auto* users = options->mutable_userns_options();
  users->set_mode(cri::NamespaceMode::POD);
  for (auto* ids : {users->mutable_uids(), users->mutable_gids()}) {
    auto* mapping = ids->Add();
    mapping->set_host_id(200'000);
    mapping->set_length(65'536);
  }
  const std::string pod = vm.Pod(pod_config);
  auto config = vm.ContainerConfig({"sleep", "1000"});
  *config.mutable_linux()->mutable_security_context()->mutable_namespace_options() = *options;
  const std::string id = vm.Running(pod, pod_config, config);
  CHECK(vm.Said(id, "awk '{print $1, $2, $3}' /proc/self/uid_map; touch /new; stat -c %u /new") ==
        "0 200000 65536\n0");
  CHECK(Sh("stat -c %u /proc/" + std::to_string(vm.Pid(id))) == "200000");
}

TEST_CASE("kill -9 of rund, and a restart of its unit: containers run on, exits keep their codes",
          "[short]") {
  Vm vm;
  const auto pod_config = vm.PodConfig("kill9");
  const std::string pod = vm.Pod(pod_config);
  const std::string id = vm.Running(pod, pod_config, vm.ContainerConfig({"sleep", "1000"}));
  auto config = vm.ContainerConfig({"sh", "-c", "until [ -e /go ]; do sleep 0.1; done; exit 7"});
  config.mutable_metadata()->set_name("ends");
  const std::string ends = vm.Running(pod, pod_config, config);
  const int pid = vm.Pid(id);
  const std::string dir = vm.CgroupDir(id);
  const std::string root = "/proc/" + std::to_string(vm.Pid(ends)) + "/root/go";
  Sh("systemctl stop crisp-rund@1; touch " + root + "; sleep 2; systemctl start crisp-rund@1");
  vm.KillDaemon("crisp-rund@1");
  CHECK(vm.StatusOf(id).state() == cri::ContainerState::CONTAINER_RUNNING);
  CHECK(vm.Pid(id) == pid);
  CHECK(vm.CgroupDir(id) == dir);
  CHECK(vm.Said(id, "echo hello") == "hello");
  CHECK(vm.Exited(ends).exit_code() == 7);
}

TEST_CASE("kill -9 of rund in the middle of creates leaves nothing behind") {
  Vm vm;
  const auto pod_config = vm.PodConfig("cut");
  const std::string pod = vm.Pod(pod_config);
  for (int round = 0; round < 4; ++round) {
    auto config = vm.ContainerConfig({"sleep", "1000"});
    config.mutable_metadata()->set_attempt(static_cast<unsigned>(round));
    // Somewhere between the intent and the answer.
    const std::string delay = std::to_string(0.1 + 0.3 * round);
    std::thread kill([&delay] {
      CHECK(
          std::system(("sleep " + delay + "; systemctl kill --kill-whom=main -s KILL crisp-rund@1")
                          .c_str()) == 0);
    });
    const auto answer = vm.cri.Create(pod, config, pod_config);
    kill.join();  // it may have been too late for this create
    vm.WaitReady();
    const std::string id =
        answer.ok() ? answer->container_id() : vm.Created(pod, pod_config, config);
    vm.Remember(id);
    REQUIRE_OK(vm.cri.Start(id));
    CHECK(vm.Said(id, "echo up") == "up");
    REQUIRE_OK(vm.cri.Remove(id));
  }
}

// Two halves, with a restart of the machine in between.
TEST_CASE("before the machine restarts", "[.before]") {
  auto vm = std::make_unique<Vm>();
  const auto pod_config = vm->PodConfig("reboot");
  const std::string pod = vm->Pod(pod_config);
  auto shared = vm->PodConfig("rebootshared");
  shared.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_network(
      cri::NamespaceMode::POD);
  shared.mutable_linux()->clear_cgroup_parent();
  shared.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
      cri::NamespaceMode::POD);
  vm->Pod(shared);
  vm->Running(pod, pod_config, vm->ContainerConfig({"sleep", "1000"}));
  static_cast<void>(vm.release());  // nothing of it is taken down
}

TEST_CASE("after the machine restarted: pods of the old boot are cleaned up, images stay",
          "[.after]") {
  Vm vm;
  const auto pods = vm.cri.ListPods();
  REQUIRE_OK(pods);
  CHECK(pods->items_size() == 2);
  for (const auto& pod : pods->items()) {
    CHECK(pod.state() == cri::PodSandboxState::SANDBOX_NOTREADY);
    vm.Remember(pod.id());
  }
  const auto containers = vm.cri.ListContainers();
  REQUIRE(containers->containers_size() == 1);
  const std::string id = containers->containers(0).id();
  vm.Remember(id);
  const auto status = vm.StatusOf(id);
  CHECK(status.state() == cri::ContainerState::CONTAINER_EXITED);
  CHECK(status.exit_code() == 255);
  CHECK(vm.cri.ImageStatus(Vm::kImage)->has_image());
  for (const auto& pod : pods->items()) REQUIRE_OK(vm.cri.RemovePod(pod.id()));
  CHECK(Sh("ls /var/lib/cni/networks/crisp | grep '^10' || true").empty());
  const auto pod_config = vm.PodConfig("again");
  const std::string pod = vm.Pod(pod_config);
  CHECK(vm.Said(vm.Running(pod, pod_config, vm.ContainerConfig({"sleep", "1000"})), "echo up") ==
        "up");
}

// What integration/vm/jobs had under way when it took the power away (cut): pods by `crispctl run`,
// with six monitors, so that at least four were there, and pulls.
TEST_CASE("after the power went in the middle of pulls and starts of pods everything is in order",
          "[.cut]") {
  Vm vm;
  const auto pods = vm.cri.ListPods();
  REQUIRE_OK(pods);
  CHECK(pods->items_size() >= 4);
  for (const auto& pod : pods->items()) {
    CHECK(pod.state() == cri::PodSandboxState::SANDBOX_NOTREADY);
    vm.Remember(pod.id());
  }
  const auto containers = vm.cri.ListContainers();
  REQUIRE_OK(containers);
  for (const auto& container : containers->containers()) {
    INFO(container.ShortDebugString());
    CHECK(container.state() != cri::ContainerState::CONTAINER_RUNNING);
    vm.Remember(container.id());
  }
  for (const auto& pod : pods->items()) REQUIRE_OK(vm.cri.RemovePod(pod.id()));
  CHECK(vm.cri.ListPods()->items().empty());
  const auto addresses = [] {
    return Sh("cd /var/lib/cni/networks/crisp && grep -H '' 10* || ls 10* || true");
  };
  const bool freed = Eventually([&] { return addresses().empty(); }, seconds(120));
  INFO(addresses());
  CHECK(freed);

  for (const std::string number : {"1", "2", "3"}) {
    REQUIRE_OK(vm.cri.Pull("docker.io/library/big:" + number, seconds(300)));
  }
  const Ran checked = RunProgram({"crispctl", "store", "check"}, seconds(300));
  INFO(checked.out << checked.err);
  CHECK(checked.code == 0);
  auto pod_config = vm.PodConfig("fresh");
  pod_config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_network(
      cri::NamespaceMode::POD);
  auto config = vm.ContainerConfig({"sleep", "1000"});
  config.mutable_image()->set_image("docker.io/library/big:1");
  config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_network(
      cri::NamespaceMode::POD);
  CHECK(vm.Said(vm.Running(vm.Pod(pod_config), pod_config, config), "echo up") == "up");
}

}  // namespace
}  // namespace crisp::harness
