#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

struct SecurityTest : OnNode {
  explicit SecurityTest(const std::string& name) : pod_config(node.PodConfig(name, true)) {
    pod = Pod(pod_config);
  }
  cri::ContainerConfig Sleep(const std::string& name) {
    return node.ContainerConfig(name, {"sleep", "1000"});
  }
  static cri::LinuxContainerSecurityContext& SecurityOf(cri::ContainerConfig& config) {
    return *config.mutable_linux()->mutable_security_context();
  }
  std::string Run(const cri::ContainerConfig& config) { return Running(pod, pod_config, config); }
  std::string Out(const std::string& id, const std::string& script) const {
    const auto ran = cri.ExecSync(id, {"sh", "-c", script});
    REQUIRE_OK(ran);
    return ran->stdout() + ran->stderr();
  }
  Answer<cri::CreateContainerResponse> TryCreate(const cri::ContainerConfig& config) const {
    return cri.Create(pod, config, pod_config);
  }

  cri::PodSandboxConfig pod_config;
  std::string pod;
};

/// The field of /proc/self/status, as a number.
std::uint64_t Bits(const std::string& status, const std::string& field) {
  const std::size_t at = status.find(field + ":\t");
  REQUIRE(at != std::string::npos);
  return std::stoull(status.substr(at + field.size() + 2, 16), nullptr, 16);
}
bool HasBit(std::uint64_t bits, int bit) {
  return ((bits >> static_cast<unsigned>(bit)) & 1U) != 0;
}

constexpr int kChown = 0;
constexpr int kKill = 5;
constexpr int kNetBindService = 10;
constexpr int kNetAdmin = 12;
constexpr int kNetRaw = 13;

TEST_CASE("Users by id and by name, groups merged and strict, and the status says which") {
  SecurityTest test("users");
  const auto image = test.node.MakeImage(
      "users:1",
      {"--layer-file", "etc/passwd=root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/srv:/bin/sh\n",
       "--layer-file", "etc/group=root:x:0:\nweb:x:1001:\nextra:x:50000:web\nmore:x:50001:other\n",
       "--user", "web", "--workdir", "/made/for/web"});
  REQUIRE_OK(test.cri.Pull(image["ref"]));
  auto config = test.Sleep("image-user");
  config.mutable_image()->set_image(image["ref"]);
  std::string id = test.Run(config);
  CHECK(test.Out(id, "id -u; id -g; id -G; echo $HOME; pwd; touch x && echo mine") ==
        "1000\n1001\n1001 50000\n/srv\n/made/for/web\nmine\n");
  auto user = test.StatusOf(id).user().linux();
  CHECK(user.uid() == 1000);
  CHECK(user.gid() == 1001);
  CHECK(std::vector<std::int64_t>(user.supplemental_groups().begin(),
                                  user.supplemental_groups().end()) ==
        std::vector<std::int64_t>{1001, 50000});

  config.mutable_metadata()->set_name("strict");
  auto& security = test.SecurityOf(config);
  security.set_run_as_username("web");
  security.mutable_run_as_group()->set_value(60000);
  security.add_supplemental_groups(1234);
  security.set_supplemental_groups_policy(cri::SupplementalGroupsPolicy::Strict);
  id = test.Run(config);
  CHECK(test.Out(id, "id -u; id -g; id -G") == "1000\n60000\n60000 1234\n");

  config.mutable_metadata()->set_name("numeric");
  security.clear_run_as_username();
  security.mutable_run_as_user()->set_value(4321);
  security.clear_run_as_group();
  CHECK(test.Out(test.Run(config), "id -u; id -g; echo $HOME") == "4321\n0\n/\n");

  config.mutable_metadata()->set_name("bad");
  security.clear_run_as_user();
  security.mutable_run_as_group()->set_value(1);
  CHECK(test.TryCreate(config).code() == grpc::StatusCode::INVALID_ARGUMENT);
  security.clear_run_as_group();
  security.set_run_as_username("nobody-knows");
  CHECK(test.TryCreate(config).message().find("nobody-knows") != std::string::npos);
  security.clear_run_as_username();
  security.set_supplemental_groups_policy(static_cast<cri::SupplementalGroupsPolicy>(7));
  CHECK_FALSE(test.TryCreate(config).ok());
}

TEST_CASE(
    "Capabilities: the default list, added, dropped, ALL, ambient, none for others than root") {
  SecurityTest test("caps");
  const auto caps = [&test](const std::string& name, const auto& change) {
    auto config = test.Sleep(name);
    change(test.SecurityOf(config));
    return test.Out(test.Run(config), "cat /proc/1/status");
  };
  std::string status = caps("default", [](auto&) {});
  CHECK(HasBit(Bits(status, "CapEff"), kChown));
  CHECK(HasBit(Bits(status, "CapEff"), kNetBindService));
  CHECK_FALSE(HasBit(Bits(status, "CapEff"), kNetRaw));
  CHECK(Bits(status, "CapAmb") == 0);

  status = caps("changed", [](auto& security) {
    security.mutable_capabilities()->add_add_capabilities("NET_RAW");
    security.mutable_capabilities()->add_drop_capabilities("CAP_CHOWN");
  });
  CHECK(HasBit(Bits(status, "CapBnd"), kNetRaw));
  CHECK_FALSE(HasBit(Bits(status, "CapBnd"), kChown));

  status = caps("none-but-kill", [](auto& security) {
    security.mutable_capabilities()->add_drop_capabilities("ALL");
    security.mutable_capabilities()->add_add_capabilities("kill");
  });
  CHECK(Bits(status, "CapBnd") == std::uint64_t{1} << unsigned{kKill});

  status = caps(
      "all", [](auto& security) { security.mutable_capabilities()->add_add_capabilities("ALL"); });
  CHECK(HasBit(Bits(status, "CapEff"), kNetAdmin));

  status = caps("user", [](auto& security) {
    security.mutable_run_as_user()->set_value(1000);
    security.mutable_capabilities()->add_add_ambient_capabilities("NET_BIND_SERVICE");
  });
  CHECK(HasBit(Bits(status, "CapBnd"), kChown));
  CHECK(Bits(status, "CapEff") == std::uint64_t{1} << unsigned{kNetBindService});
  CHECK(Bits(status, "CapAmb") == std::uint64_t{1} << unsigned{kNetBindService});

  auto config = test.Sleep("unknown");
  test.SecurityOf(config).mutable_capabilities()->add_add_capabilities("FLY");
  CHECK(test.TryCreate(config).message().find("FLY") != std::string::npos);
}

TEST_CASE("no_new_privs, masked and read-only paths are as asked") {
  SecurityTest test("walls");
  auto config = test.Sleep("c");
  auto& security = test.SecurityOf(config);
  security.set_no_new_privs(true);
  security.add_masked_paths("/proc/version");
  security.add_masked_paths("/proc/fs");
  security.add_readonly_paths("/proc/sys");
  const std::string id = test.Run(config);
  CHECK(test.Out(id, "grep NoNewPrivs /proc/1/status") == "NoNewPrivs:\t1\n");
  CHECK(test.Out(id, "cat /proc/version; ls /proc/fs").empty());
  CHECK(test.Out(id, "echo 1 > /proc/sys/net/ipv4/ip_forward || echo no").find("no\n") !=
        std::string::npos);
  const std::string open = test.Run(test.Sleep("open"));
  CHECK(test.Out(open, "grep NoNewPrivs /proc/1/status") == "NoNewPrivs:\t0\n");
  CHECK(test.Out(open, "cat /proc/version").find("Linux") != std::string::npos);
  CHECK(test.Out(open, "touch /sys/x || echo no").find("no\n") != std::string::npos);
}

TEST_CASE("seccomp: unconfined, the default profile, one of the node, old and new fields") {
  SecurityTest test("seccomp");
  using Profile = cri::SecurityProfile;
  const std::string path = test.node.dir() + "/no-mkdir.json";
  REQUIRE(os::WriteFile(path, R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
      {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]})")
              .ok());
  const auto run = [&test](const std::string& name, const auto& change) {
    auto config = test.Sleep(name);
    change(test.SecurityOf(config));
    return test.Run(config);
  };
  const auto mode = [&test](const std::string& id) {
    return test.Out(id, "grep Seccomp: /proc/1/status");
  };
  CHECK(mode(run("nothing", [](auto&) {})) == "Seccomp:\t0\n");
  CHECK(mode(run("unconfined", [&path](auto& security) {
          security.mutable_seccomp()->set_profile_type(Profile::Unconfined);
          security.set_seccomp_profile_path("localhost/" + path);
        })) == "Seccomp:\t0\n");
  const std::string usual = run("default", [](auto& security) {
    security.mutable_seccomp()->set_profile_type(Profile::RuntimeDefault);
  });
  CHECK(mode(usual) == "Seccomp:\t2\n");
  CHECK(test.Out(usual, "mkdir /tmp/x && echo made") == "made\n");
  CHECK(test.Out(usual, "unshare -U true || echo no").find("no\n") != std::string::npos);
  const std::string local = run("localhost", [&path](auto& security) {
    security.mutable_seccomp()->set_profile_type(Profile::Localhost);
    security.mutable_seccomp()->set_localhost_ref(path);
  });
  CHECK(test.Out(local, "mkdir /tmp/x || echo no").find("Permission denied") != std::string::npos);
  CHECK(mode(run("old-default", [](auto& security) {
          security.set_seccomp_profile_path("runtime/default");
        })) == "Seccomp:\t2\n");
  const std::string old_local = run("old-localhost", [&path](auto& security) {
    security.set_seccomp_profile_path("localhost/" + path);
  });
  CHECK(test.Out(old_local, "mkdir /tmp/x || echo no").find("no\n") != std::string::npos);
}

TEST_CASE("A seccomp profile that is missing or wrong fails the create with the file's name") {
  SecurityTest test("badseccomp");
  auto config = test.Sleep("c");
  auto& seccomp = *test.SecurityOf(config).mutable_seccomp();
  seccomp.set_profile_type(cri::SecurityProfile::Localhost);
  const std::string path = test.node.dir() + "/bad.json";
  seccomp.set_localhost_ref(path);
  CHECK(test.TryCreate(config).message().find(path) != std::string::npos);
  for (const char* text : {"{", "[]", R"({"defaultAction": "SCMP_ACT_PRAY"})",
                           R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": []}]})"}) {
    REQUIRE(os::WriteFile(path, text).ok());
    const auto answer = test.TryCreate(config);
    INFO(answer.message());
    CHECK(answer.code() == grpc::StatusCode::INVALID_ARGUMENT);
    CHECK(answer.message().find(path) != std::string::npos);
  }
  seccomp.set_localhost_ref("relative.json");
  CHECK(test.TryCreate(config).code() == grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_CASE("AppArmor and SELinux: without them what asks for them by name is refused") {
  if (os::Exists("/sys/fs/selinux/enforce") || os::Exists("/sys/kernel/security/apparmor")) {
    WARN("this node has one of them: shown where they are");
    return;
  }
  SecurityTest test("lsm");
  auto config = test.Sleep("default");
  test.SecurityOf(config).mutable_apparmor();
  test.Run(config);
  config.mutable_metadata()->set_name("named");
  test.SecurityOf(config).mutable_apparmor()->set_profile_type(cri::SecurityProfile::Localhost);
  test.SecurityOf(config).mutable_apparmor()->set_localhost_ref("mine");
  CHECK(test.TryCreate(config).message().find("AppArmor is not enabled") != std::string::npos);
  test.SecurityOf(config).clear_apparmor();
  test.SecurityOf(config).mutable_selinux_options()->set_level("s0:c1,c2");
  config.mutable_metadata()->set_name("labelled");
  CHECK(test.TryCreate(config).ok());  // labels mean nothing here
  auto pod_config = test.node.PodConfig("labelled", true);
  pod_config.mutable_linux()->mutable_security_context()->mutable_selinux_options()->set_type("t");
  const auto labelled = test.cri.RunPod(pod_config);
  REQUIRE_OK(labelled);
  test.node.Remember(labelled->pod_sandbox_id());
}

TEST_CASE("A privileged container needs a privileged pod, and no profile holds for it") {
  SecurityTest test("privileged");
  auto config = test.Sleep("c");
  test.SecurityOf(config).set_privileged(true);
  CHECK(test.TryCreate(config).code() == grpc::StatusCode::INVALID_ARGUMENT);
  auto pod_config = test.node.PodConfig("privileged", true);
  pod_config.mutable_linux()->mutable_security_context()->set_privileged(true);
  const std::string pod = test.Pod(pod_config);
  auto& security = test.SecurityOf(config);
  security.mutable_seccomp()->set_profile_type(cri::SecurityProfile::RuntimeDefault);
  security.add_masked_paths("/proc/version");
  const std::string id = test.Running(pod, pod_config, config);
  CHECK(
      test.Out(id, "grep Seccomp: /proc/1/status; cat /proc/version").find("Seccomp:\t0\nLinux") ==
      0);
  CHECK(test.Out(id,
                 "test -c /dev/zero && mount -t tmpfs x /mnt 2>&1 || mkdir /mnt && "
                 "mount -t tmpfs x /mnt && echo mounted")
            .find("mounted") != std::string::npos);
}

TEST_CASE("oom_score_adj is set, and held to what the daemon may give") {
  SecurityTest test("oom-score");
  auto config = test.Sleep("plus");
  config.mutable_linux()->mutable_resources()->set_oom_score_adj(500);
  CHECK(test.Out(test.Run(config), "cat /proc/1/oom_score_adj") == "500\n");
  config.mutable_metadata()->set_name("minus");
  config.mutable_linux()->mutable_resources()->set_oom_score_adj(-999);
  const std::string given = test.Out(test.Run(config), "cat /proc/1/oom_score_adj");
  CHECK(std::stoi(given) <= 0);
}

TEST_CASE("Sysctls that are not the pod's are refused by name") {
  OnNode on;
  auto config = on.node.PodConfig("sysctls");
  auto& sysctls = *config.mutable_linux()->mutable_sysctls();
  sysctls["vm.swappiness"] = "1";
  CHECK(on.cri.RunPod(config).message().find("vm.swappiness") != std::string::npos);
  sysctls.clear();
  sysctls["fs.mqueue.msg_max"] = "100";
  sysctls["net.core.somaxconn"] = "333";
  const std::string pod = on.Pod(config);
  const std::string id = on.Running(pod, config, on.node.ContainerConfig("c", {"sleep", "1000"}));
  CHECK(on.cri.ExecSync(id, {"cat", "/proc/sys/fs/mqueue/msg_max", "/proc/sys/net/core/somaxconn"})
            ->stdout() == "100\n333\n");
  auto host = on.node.PodConfig("sysctls-host", true);
  (*host.mutable_linux()->mutable_sysctls())["net.core.somaxconn"] = "333";
  CHECK(on.cri.RunPod(host).message().find("net.core.somaxconn") != std::string::npos);
}

}  // namespace
}  // namespace crisp::harness
