#include "services/rund/spec/selinux.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "services/rund/spec/tests/fixture.h"

using namespace crisp;
using namespace crisp::rund;

namespace {

/// A node with SELinux whose kernel takes every label, and keeps them in user.* attributes.
struct WithSelinux : SpecFixture {
  WithSelinux() {
    root.Write("selinux/enforce", "1");
    root.Write("selinux/context", "");
    root.Write("etc/config", "# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n");
    root.Write("etc/targeted/contexts/lxc_contexts",
               "process = \"system_u:system_r:container_t:s0\"\n"
               "file = \"system_u:object_r:container_file_t:s0\"\n"
               "ro_file=\"system_u:object_r:container_ro_file_t:s0\"\n");
    defaults.selinux = DetectSelinux(root / "selinux", root / "etc").value();
    defaults.selinux.xattr = "user.crisp_test";
    pod_files.selinux_level = "s0:c1,c2";
  }
  std::string LabelOf(const std::string& path) const {
    std::array<char, 256> text{};
    const ssize_t n =
        lgetxattr(path.c_str(), defaults.selinux.xattr.c_str(), text.data(), text.size());
    return n <= 0 ? "" : std::string(text.data());
  }
  runtime::v1::SELinuxOption& options() { return *security().mutable_selinux_options(); }
};

std::string ProcessLabel(const SpecFixture& fixture) {
  const auto built = fixture.Build();
  return built.ok() ? built->spec["process"].value("selinuxLabel", "none") : CodeName(built.code());
}

constexpr const char* kFile = "system_u:object_r:container_file_t:s0:c1,c2";

}  // namespace

TEST_CASE("Without SELinux there are no labels, and options are passed over") {
  const SelinuxNode node = DetectSelinux("/nowhere", "/nowhere").value();
  CHECK_FALSE(node.on());
  CHECK(LabelsOf(node, {}, "", false)->process.empty());
  SpecFixture fixture;
  CHECK(ProcessLabel(fixture) == "none");
  CHECK(fixture.Build()->notes.empty());
  // As agents have it that run on every node.
  fixture.security().mutable_selinux_options()->set_type("spc_t");
  CHECK(ProcessLabel(fixture) == "none");
  REQUIRE(fixture.Build()->notes.size() == 1);
  CHECK(fixture.Build()->notes[0].starts_with("SELinux"));
}

TEST_CASE("SELinux without labels for containers does not pass for off") {
  WithSelinux fixture;
  fixture.root.Write("etc/targeted/contexts/lxc_contexts", "process = \"a:b:c:s0\"\n");
  CHECK(DetectSelinux(fixture.root / "selinux", fixture.root / "etc").code() ==
        Code::kFailedPrecondition);
}

TEST_CASE("The containers of a pod share its level; options override part by part") {
  WithSelinux fixture;
  CHECK(ProcessLabel(fixture) == "system_u:system_r:container_t:s0:c1,c2");
  CHECK(fixture.Build()->spec["linux"]["mountLabel"] == kFile);
  auto& of_pod =
      *fixture.sandbox.mutable_linux()->mutable_security_context()->mutable_selinux_options();
  of_pod.set_type("web_t");
  CHECK(ProcessLabel(fixture) == "system_u:system_r:web_t:s0:c1,c2");
  fixture.options().set_level("s0:c3,c4");
  CHECK(ProcessLabel(fixture) == "system_u:system_r:web_t:s0:c3,c4");
  fixture.options().set_user("user_u");
  fixture.options().set_role("user_r");
  fixture.options().set_type("own_t");
  CHECK(ProcessLabel(fixture) == "user_u:user_r:own_t:s0:c3,c4");
  fixture.options().set_type("a b");
  CHECK(ProcessLabel(fixture) == "INVALID_ARGUMENT");
}

TEST_CASE("Privileged containers and those in host namespaces are not confined") {
  WithSelinux fixture;
  fixture.security().mutable_namespace_options()->set_pid(runtime::v1::NODE);
  const BuiltSpec built = fixture.Build().value();
  CHECK(built.spec["process"]["selinuxLabel"] == "system_u:system_r:spc_t:s0");
  CHECK_FALSE(built.spec["linux"].contains("mountLabel"));
  fixture.options().set_type("my_t");
  CHECK(ProcessLabel(fixture) == "system_u:system_r:my_t:s0");
}

TEST_CASE("Each pod gets two categories that no other pod has") {
  std::set<std::string> taken;
  for (int i = 0; i < 2000; ++i) {
    const std::string level = PickLevel(taken, "the same seed", 1).value();
    CHECK(level.starts_with("s0:c"));
    CHECK(taken.insert(level).second);
  }
  // Nor does another instance pick one of them.
  std::set<std::string> others;
  for (int i = 0; i < 2000; ++i) {
    const std::string level = PickLevel(others, "the same seed", 2).value();
    CHECK_FALSE(taken.contains(level));
    others.insert(level);
  }
}

TEST_CASE("A volume is labelled with all below it, links themselves, once") {
  WithSelinux fixture;
  const std::string volume = fixture.root / "data";
  fixture.root.Write("data/a/b", "x");
  fixture.root.Write("outside", "x");
  REQUIRE(symlink("../../outside", (volume + "/a/link").c_str()) == 0);
  fixture.AddMount("/data", volume).set_selinux_relabel(true);
  fixture.AddMount("/untouched", fixture.root.Write("plain/f", "x"));
  REQUIRE(fixture.Build().ok());
  CHECK(fixture.LabelOf(volume) == kFile);
  CHECK(fixture.LabelOf(volume + "/a") == kFile);
  CHECK(fixture.LabelOf(volume + "/a/b") == kFile);
  CHECK(fixture.LabelOf(fixture.root / "outside").empty());
  CHECK(fixture.LabelOf(fixture.root / "plain/f").empty());

  // The top fits: what is below is left alone.
  REQUIRE(removexattr((volume + "/a/b").c_str(), "user.crisp_test") == 0);
  REQUIRE(fixture.Build().ok());
  CHECK(fixture.LabelOf(volume + "/a/b").empty());
  fixture.pod_files.selinux_level = "s0:c7,c8";
  REQUIRE(fixture.Build().ok());
  CHECK(fixture.LabelOf(volume + "/a/b") == "system_u:object_r:container_file_t:s0:c7,c8");
}

TEST_CASE("The system's own directories are never relabelled") {
  WithSelinux fixture;
  runtime::v1::Mount& mount = fixture.AddMount("/host", "/usr");
  CHECK(fixture.Build().ok());
  mount.set_selinux_relabel(true);
  for (const char* path : {"/usr", "/opt", "/var/lib"}) {
    mount.set_host_path(path);
    const auto built = fixture.Build();
    CHECK(built.code() == Code::kInvalidArgument);
    CHECK(built.status().message().starts_with("mounts[0].selinux_relabel"));
  }
}

TEST_CASE("A socket is labelled as any other file") {
  WithSelinux fixture;
  const std::string path = fixture.root / "socket";
  const os::UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof address.sun_path);
  path.copy(static_cast<char*>(address.sun_path), path.size());
  REQUIRE(bind(listener.get(), reinterpret_cast<sockaddr*>(&address),  // NOLINT: its interface
               sizeof address) == 0);
  // The kernel has user.* attributes for files and directories only; what counts is that labelling
  // gets as far as that, and does not fail to open it.
  const Status labelled = Relabel(fixture.defaults.selinux, path, kFile);
  INFO(labelled.ToString());
  CHECK(labelled.error() != ENXIO);
  CHECK((labelled.ok() || labelled.error() == EPERM));
}
