// Whole specs, as they are given to the runtime: rewritten with CRISP_ACCEPT=1, and read in review.
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "services/rund/spec/tests/fixture.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

/// Compares with tests/golden/<name>.json; CRISP_ACCEPT=1 writes it. What differs from machine to
/// machine (the temporary tree, the list of system calls) is replaced first.
void CheckGolden(const SpecFixture& fixture, json spec, const std::string& name) {
  if (spec["linux"].contains("seccomp")) {
    for (json& rule : spec["linux"]["seccomp"]["syscalls"]) {
      if (rule["names"].size() > 8) rule["names"] = "<many>";
    }
  }
  std::string text = spec.dump(2) + "\n";
  for (std::size_t at = 0; (at = text.find(fixture.root.path(), at)) != std::string::npos;) {
    text.replace(at, fixture.root.path().size(), "<root>");
  }
  const std::string path = std::string(CRISP_GOLDEN_DIR) + "/" + name + ".json";
  if (std::getenv("CRISP_ACCEPT") != nullptr) {
    std::ofstream(path) << text;
    return;
  }
  std::ifstream file(path);
  std::stringstream expected;
  expected << file.rdbuf();
  CHECK(text == expected.str());
}

/// A burstable pod with limits, a service account, an emptyDir and a probe's worth of labels, as a
/// kubelet of 1.36 puts it.
void KubeletsPod(SpecFixture& fixture) {
  const std::string kubelet = fixture.root / "kubelet/pods/5f0c";
  for (const char* file : {"/etc-hosts", "/containers/main/1a2b3c4d"}) {
    fixture.root.Write("kubelet/pods/5f0c" + std::string(file), "");
  }
  for (const char* dir : {"kube-api-access-x7v2q", "cache"}) {
    fixture.root.Write("kubelet/pods/5f0c/volumes/" + std::string(dir) + "/.keep", "");
  }
  fixture.pod_files.shm_path = "/run/pod/shm";
  fixture.pod_files.resolv_conf = "/run/pod/resolv.conf";
  fixture.pod_files.hosts = "/run/pod/hosts";
  fixture.pod_files.hostname_file = "/run/pod/hostname";

  runtime::v1::PodSandboxConfig& pod = fixture.sandbox;
  pod.set_hostname("web-0");
  pod.set_log_directory("/var/log/pods/shop_web-0_5f0c");
  pod.mutable_dns_config()->add_servers("10.96.0.10");
  (*pod.mutable_labels())["io.kubernetes.pod.name"] = "web-0";
  (*pod.mutable_annotations())["kubernetes.io/config.source"] = "api";
  pod.mutable_linux()->set_cgroup_parent("/kubepods/burstable/pod5f0c");
  auto& spaces = *pod.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  spaces.set_pid(runtime::v1::CONTAINER);
  // A profile without a type: RuntimeDefault is its zero.
  pod.mutable_linux()->mutable_security_context()->mutable_seccomp();

  runtime::v1::ContainerConfig& container = fixture.config;
  container.mutable_image()->set_image(fixture.image.image_id());
  container.mutable_image()->set_user_specified_image("registry.test/web:1.2");
  container.clear_command();
  container.add_args("--port=8080");
  for (const auto& [name, value] :
       {std::pair{"GREETING", "hello"}, std::pair{"KUBERNETES_SERVICE_HOST", "10.96.0.1"},
        std::pair{"KUBERNETES_SERVICE_PORT", "443"}}) {
    auto& env = *container.add_envs();
    env.set_key(name);
    env.set_value(value);
  }
  fixture.AddMount("/cache", kubelet + "/volumes/cache");
  fixture
      .AddMount("/var/run/secrets/kubernetes.io/serviceaccount",
                kubelet + "/volumes/kube-api-access-x7v2q")
      .set_readonly(true);
  fixture.AddMount("/etc/hosts", kubelet + "/etc-hosts");
  fixture.AddMount("/dev/termination-log", kubelet + "/containers/main/1a2b3c4d");
  (*container.mutable_labels())["io.kubernetes.container.name"] = "main";
  (*container.mutable_annotations())["io.kubernetes.container.restartCount"] = "0";
  container.set_log_path("main/0.log");

  auto& resources = *container.mutable_linux()->mutable_resources();
  resources.set_cpu_period(100000);
  resources.set_cpu_quota(50000);
  resources.set_cpu_shares(102);
  resources.set_memory_limit_in_bytes(128 << 20);
  resources.set_oom_score_adj(968);
  // Always, with and without such pages.
  for (const char* size : {"2MB", "1GB"}) resources.add_hugepage_limits()->set_page_size(size);
  auto& security = fixture.security();
  security.mutable_namespace_options()->set_pid(runtime::v1::CONTAINER);
  security.mutable_run_as_user()->set_value(1000);
  security.set_no_new_privs(true);
  security.set_supplemental_groups_policy(runtime::v1::Merge);
  security.add_supplemental_groups(2000);  // fsGroup
  security.mutable_seccomp();
  security.mutable_capabilities()->add_drop_capabilities("ALL");
  for (const char* path :
       {"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys",
        "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
        "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}) {
    security.add_masked_paths(path);
  }
  for (const char* path :
       {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}) {
    security.add_readonly_paths(path);
  }
  fixture.image.set_config_json(
      R"({"config":{"Env":["PATH=/bin"],"Entrypoint":["/web"],"Cmd":["--port=80"],)"
      R"("WorkingDir":"/srv/web"}})");
}

TEST_CASE("Golden: a plain container of a plain pod") {
  SpecFixture fixture;
  fixture.pod_files.resolv_conf = "/run/pod/resolv.conf";
  fixture.pod_files.hosts = "/run/pod/hosts";
  fixture.pod_files.hostname_file = "/run/pod/hostname";
  fixture.pod_files.shm_path = "/run/pod/shm";
  fixture.image.set_config_json(
      R"({"config":{"Env":["PATH=/bin","LANG=C"],"WorkingDir":"/srv/web","User":"web"}})");
  const BuiltSpec built = fixture.Build().value();
  CheckGolden(fixture, built.spec, "plain");
  CHECK(built.notes.empty());
  CHECK(built.user.uid() == 1000);
  CHECK(built.user.supplemental_groups_size() == 3);
}

TEST_CASE("Golden: limits, devices, paths, seccomp, a shared PID namespace") {
  SpecFixture fixture;
  auto& resources = *fixture.config.mutable_linux()->mutable_resources();
  resources.set_cpu_shares(512);
  resources.set_cpu_quota(-1);
  resources.set_cpu_period(100000);
  resources.set_cpuset_cpus("0-1");
  resources.set_memory_limit_in_bytes(64 << 20);
  resources.set_memory_swap_limit_in_bytes(64 << 20);
  resources.set_oom_score_adj(-997);
  auto& hugepages = *resources.add_hugepage_limits();
  hugepages.set_page_size("2MB");
  hugepages.set_limit(4 << 20);
  resources.add_hugepage_limits()->set_page_size("1GB");
  auto& security = fixture.security();
  security.set_readonly_rootfs(true);
  security.set_no_new_privs(true);
  security.add_masked_paths("/proc/kcore");
  security.add_readonly_paths("/proc/sys");
  security.mutable_seccomp()->set_profile_type(runtime::v1::SecurityProfile::RuntimeDefault);
  fixture.pod_files.pid_ns_path = "/proc/42/ns/pid";
  (*fixture.sandbox.mutable_linux()->mutable_sysctls())["kernel/shm_rmid_forced"] = "1";
  (*fixture.sandbox.mutable_linux()->mutable_sysctls())["net.core.somaxconn"] = "1024";
  auto& device = *fixture.config.add_devices();
  // Not /dev/null: runtimes give that one to the user of the container whose stdin it is.
  device.set_host_path("/dev/zero");
  device.set_container_path("/dev/nothing");
  device.set_permissions("rm");
  fixture.defaults.ulimits = {{"nofile", 1024, 4096}};
  CheckGolden(fixture, fixture.Build().value().spec, "limits");
}

TEST_CASE("Golden: privileged on the host's namespaces") {
  SpecFixture fixture;
  fixture.pod_files = {};
  fixture.security().set_privileged(true);
  fixture.security().add_masked_paths("/proc/kcore");
  fixture.security().mutable_seccomp()->set_profile_type(
      runtime::v1::SecurityProfile::RuntimeDefault);
  fixture.security().mutable_namespace_options()->set_pid(runtime::v1::NODE);
  CHECK(fixture.Build().code() == Code::kInvalidArgument);
  fixture.sandbox.mutable_linux()->mutable_security_context()->set_privileged(true);
  REQUIRE(mkdir((fixture.root / "dev").c_str(), 0755) == 0);
  CheckGolden(fixture, fixture.Build().value().spec, "privileged");
}

TEST_CASE("Golden: what a kubelet sends for a usual pod") {
  SpecFixture fixture;
  KubeletsPod(fixture);
  const BuiltSpec built = fixture.Build().value();
  CheckGolden(fixture, built.spec, "kubelet");
  CHECK(built.notes.empty());
  CHECK(built.user.uid() == 1000);
}

TEST_CASE("Golden: what crictl sends for a usual pod") {
  SpecFixture fixture;
  fixture.pod_files.shm_path = "/run/pod/shm";
  fixture.pod_files.resolv_conf = "/run/pod/resolv.conf";
  fixture.pod_files.hosts = "/run/pod/hosts";
  fixture.pod_files.hostname_file = "/run/pod/hostname";
  // {"metadata": {...}, "log_directory": "/tmp", "linux": {}}, and as little of the container.
  fixture.sandbox.mutable_metadata()->set_name("busybox-sandbox");
  fixture.sandbox.mutable_metadata()->set_namespace_("default");
  fixture.sandbox.mutable_metadata()->set_uid("hdishd83djaidwnduwk28bcsb");
  fixture.sandbox.set_log_directory("/tmp");
  fixture.sandbox.mutable_linux();
  fixture.config.mutable_metadata()->set_name("busybox");
  fixture.config.mutable_image()->set_image("busybox");
  fixture.config.clear_command();
  fixture.config.add_command("top");
  fixture.config.set_log_path("busybox.log");
  fixture.config.mutable_linux();
  fixture.image.set_config_json(
      R"({"config":{"Env":["PATH=/usr/local/bin:/usr/bin:/bin"],"Cmd":["sh"]}})");
  CheckGolden(fixture, fixture.Build().value().spec, "crictl");
}

}  // namespace
}  // namespace crisp::rund
