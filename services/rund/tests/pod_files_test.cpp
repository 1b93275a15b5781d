#include "services/rund/core/pod_files.h"

#include <sys/xattr.h>

#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "libs/testing/test_root.h"

using namespace crisp;
using namespace crisp::rund;
namespace cri = runtime::v1;

TEST_CASE("The node's sysctls are those of the namespaces that a pod has, and the pod's own win") {
  const std::map<std::string, std::string> node = {{"net.core.somaxconn", "1"},
                                                   {"kernel.shm_rmid_forced", "1"},
                                                   {"kernel.domainname", "x"},
                                                   {"vm.swappiness", "1"}};
  const auto of = [&node](const auto& change) {
    cri::PodSandboxConfig config;
    change(config);
    AddDefaultSysctls(node, config);
    return std::map<std::string, std::string>(config.linux().sysctls().begin(),
                                              config.linux().sysctls().end());
  };
  using Map = std::map<std::string, std::string>;
  CHECK(of([](auto&) {}) == Map{{"net.core.somaxconn", "1"},
                                {"kernel.shm_rmid_forced", "1"},
                                {"kernel.domainname", "x"}});
  CHECK(of([](auto& config) {
          (*config.mutable_linux()->mutable_sysctls())["net.core.somaxconn"] = "9";
          config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_ipc(
              cri::NODE);
        }) == Map{{"net.core.somaxconn", "9"}, {"kernel.domainname", "x"}});
  CHECK(of([](auto& config) {
          config.mutable_linux()
              ->mutable_security_context()
              ->mutable_namespace_options()
              ->set_network(cri::NODE);
        }) == Map{{"kernel.shm_rmid_forced", "1"}});
}

TEST_CASE("What a pod says of its own process must be possible") {
  const auto code = [](const auto& change) {
    cri::PodSandboxConfig config;
    change(*config.mutable_linux()->mutable_security_context());
    return CheckPodConfig(config).code();
  };
  CHECK(code([](auto&) {}) == Code::kOk);
  CHECK(code([](auto& security) { security.mutable_run_as_user()->set_value(-1); }) ==
        Code::kInvalidArgument);
  CHECK(code([](auto& security) { security.mutable_run_as_group()->set_value(1); }) ==
        Code::kInvalidArgument);
  CHECK(code([](auto& security) { security.add_supplemental_groups(std::int64_t{1} << 40); }) ==
        Code::kInvalidArgument);
  CHECK(code([](auto& security) {
          security.set_supplemental_groups_policy(static_cast<cri::SupplementalGroupsPolicy>(9));
        }) == Code::kInvalidArgument);
  CHECK(code([](auto& security) {
          security.mutable_seccomp()->set_profile_type(
              static_cast<cri::SecurityProfile::ProfileType>(9));
        }) == Code::kInvalidArgument);
  testing::TestRoot root;
  const std::string profile = root.Write("profile", R"({"defaultAction":"SCMP_ACT_ALLOW"})");
  const auto localhost = [&](const std::string& ref) {
    return code([&ref](auto& security) {
      security.mutable_seccomp()->set_profile_type(cri::SecurityProfile::Localhost);
      security.mutable_seccomp()->set_localhost_ref(ref);
    });
  };
  CHECK(localhost(profile) == Code::kOk);
  CHECK(localhost("profile") == Code::kInvalidArgument);
  CHECK(localhost(root / "absent") == Code::kNotFound);
  CHECK(localhost(root.Write("wrong", "{}")) == Code::kInvalidArgument);
  CHECK(code([](auto& security) {
          security.mutable_apparmor()->set_profile_type(
              static_cast<cri::SecurityProfile::ProfileType>(9));
        }) == Code::kInvalidArgument);
}

TEST_CASE("With SELinux the pod's files have the label of its containers' files") {
  testing::TestRoot root;
  root.Write("selinux/context", "");
  SelinuxNode selinux;
  selinux.root = root / "selinux";
  selinux.process = "u:r:container_t:s0";
  selinux.file = "u:r:container_file_t:s0";
  selinux.xattr = "user.crisp_test";
  const Layout layout = Layout::Make(root / "state", root / "run", "1");
  v1::PodRecord pod;
  pod.set_id(std::string(64, 'a'));
  pod.set_selinux_level("s0:c1,c2");
  const PodId id(pod.id());
  REQUIRE(os::MakeDirs(layout.ShmDir(id)).ok());
  for (const std::string& path :
       {layout.ResolvConfPath(id), layout.HostsPath(id), layout.HostnamePath(id)}) {
    REQUIRE(os::WriteFile(path, "x").ok());
  }
  REQUIRE(LabelPodFiles(layout, pod, selinux).ok());
  for (const std::string& path : {layout.HostsPath(id), layout.ShmDir(id)}) {
    std::array<char, 100> label{};
    CHECK(getxattr(path.c_str(), "user.crisp_test", label.data(), label.size()) > 0);
    CHECK(std::string(label.data()) == "u:r:container_file_t:s0:c1,c2");
  }
  CHECK(LabelPodFiles(layout, pod, SelinuxNode()).ok());
}
