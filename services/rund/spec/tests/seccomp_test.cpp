#include "services/rund/spec/seccomp.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "services/rund/spec/security.h"
#include "services/rund/spec/tests/fixture.h"

using namespace crisp;
using namespace crisp::rund;
using nlohmann::json;

namespace {

CapabilitySets With(const std::vector<std::string>& names) {
  runtime::v1::Capability asked;
  for (const auto& name : names) asked.add_add_capabilities(name);
  return BuildCapabilities({}, asked, false, true, ~CapabilityBits{0}).value();
}

/// The errno (0 = none) of one system call under a filter, in a child process.
template <typename Call>
int ErrnoUnder(const std::string& program, Call call) {
  const pid_t child = fork();
  if (child == 0) {
    std::vector<sock_filter> code(program.size() / sizeof(sock_filter));
    std::memcpy(code.data(), program.data(), program.size());
    sock_fprog filter = {static_cast<unsigned short>(code.size()), code.data()};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) != 0) {
      _exit(255);
    }
    errno = 0;
    _exit(call() < 0 ? errno : 0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  REQUIRE(WEXITSTATUS(status) != 255);
  return WEXITSTATUS(status);
}

json Parse(std::string_view text) { return json::parse(text); }

}  // namespace

TEST_CASE("The built-in profile holds in the kernel") {
  const Result<std::string> program = CompileSeccomp(DefaultSeccomp(With({"CHOWN"})));
  REQUIRE(program.ok());
  const auto under = [&program](auto call) { return ErrnoUnder(*program, call); };
  CHECK(under([] { return syscall(SYS_getpid) > 0 ? 0 : -1; }) == 0);
  CHECK(under([] { return open("/dev/null", O_RDONLY); }) == 0);
  CHECK(under([] { return unshare(CLONE_NEWNS); }) == EPERM);
  CHECK(under([] { return syscall(SYS_mount, nullptr, "/", nullptr, 0, nullptr); }) == EPERM);
  CHECK(under([] { return syscall(SYS_bpf, 0, nullptr, 0); }) == EPERM);
  CHECK(under([] { return syscall(SYS_keyctl, 0, 0, 0, 0, 0); }) == EPERM);
  CHECK(under([] { return syscall(SYS_io_uring_setup, 1, nullptr); }) == EPERM);
  CHECK(under([] { return syscall(SYS_reboot, 0, 0, 0, nullptr); }) == EPERM);
  // glibc takes clone when clone3 is not there.
  CHECK(under([] { return syscall(SYS_clone3, nullptr, 0); }) == ENOSYS);
  // Nobody knows this one.
  CHECK(under([] { return syscall(900); }) == ENOSYS);
  CHECK(under([] { return syscall(SYS_clone, CLONE_NEWUSER, nullptr, nullptr, nullptr, 0); }) ==
        EPERM);
  CHECK(under([] { return socket(AF_UNIX, SOCK_STREAM, 0); }) == 0);
  CHECK(under([] { return socket(AF_VSOCK, SOCK_STREAM, 0); }) == EPERM);
  CHECK(under([] { return personality(0xffffffff); }) == 0);
  CHECK(under([] { return personality(ADDR_NO_RANDOMIZE); }) != 0);
  CHECK(under([] {
          const pid_t child = fork();
          if (child == 0) _exit(0);
          return child;
        }) == 0);
}

TEST_CASE("A capability brings its system calls back") {
  const std::string program = CompileSeccomp(DefaultSeccomp(With({"SYS_ADMIN"}))).value();
  // The kernel's own word, not the filter's.
  CHECK(ErrnoUnder(program, [] { return syscall(SYS_clone3, nullptr, 0); }) == EINVAL);
  CHECK(ErrnoUnder(program, [] { return syscall(SYS_fsopen, nullptr, 0xffffU); }) == EINVAL);
  CHECK(ErrnoUnder(program, [] { return syscall(SYS_init_module, nullptr, 0, nullptr); }) == EPERM);
}

TEST_CASE("Every known system call has one fate in the built-in profile") {
  std::map<std::string, int> seen;
  const json profile = DefaultSeccomp(With({}));
  for (const json& rule : profile["syscalls"]) {
    if (rule.contains("args")) continue;
    for (const json& name : rule["names"]) ++seen[name];
  }
  CHECK(seen.size() > 350);
  for (const auto& [name, count] : seen) {
    INFO(name);
    CHECK(count == 1);
  }
  for (const char* name : {"clone", "clone3", "personality", "socket"})
    CHECK(seen.count(name) == 0);
}

TEST_CASE("Several conditions on one argument are alternatives") {
  const json section = Parse(R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
    {"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":7,"args":[
      {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]})");
  const std::string program = CompileSeccomp(section).value();
  CHECK(ErrnoUnder(program, [] { return socket(AF_UNIX, SOCK_STREAM, 0); }) == 7);
  CHECK(ErrnoUnder(program, [] { return socket(AF_INET, SOCK_STREAM, 0); }) == 7);
  CHECK(ErrnoUnder(program, [] { return socket(AF_INET6, SOCK_STREAM, 0); }) != 7);
}

TEST_CASE("A profile in the container tools' form becomes an OCI section") {
  const char* profile = R"({"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
    "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
               {"architecture":"SCMP_ARCH_S390X","subArchitectures":["SCMP_ARCH_S390"]}],
    "syscalls":[
      {"names":["read"],"action":"SCMP_ACT_ALLOW","comment":"","includes":{},"excludes":{}},
      {"name":"mount","action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
      {"names":["unshare"],"action":"SCMP_ACT_ERRNO","errnoRet":1,
       "excludes":{"caps":["CAP_SYS_ADMIN"]}},
      {"names":["s390_pci_mmio_read"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}},
      {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}}]})";
  const json plain = NormaliseSeccomp(profile, With({})).value();
#if defined(__x86_64__)
  CHECK(plain["architectures"] == json{"SCMP_ARCH_X86_64", "SCMP_ARCH_X86"});
#endif
  REQUIRE(plain["syscalls"].size() == 3);
  CHECK(plain["syscalls"][1]["names"] == json{"unshare"});
  CHECK(plain["syscalls"][1]["errnoRet"] == 1);
  const json admin = NormaliseSeccomp(profile, With({"SYS_ADMIN"})).value();
  REQUIRE(admin["syscalls"].size() == 3);
  CHECK(admin["syscalls"][1]["names"] == json{"mount"});
}

TEST_CASE("Bad profiles are refused with the place of the fault") {
  const CapabilitySets none;
  for (const char* bad :
       {"", "[]", "{}", R"({"defaultAction":"ALLOW"})",
        R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_LOG"}]})",
        R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"X"}]})",
        R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG",
            "args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]})",
        R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG",
            "args":[{"index":1,"value":-1,"op":"SCMP_CMP_EQ"}]}]})",
        R"({"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":"x"})"}) {
    INFO(bad);
    CHECK(NormaliseSeccomp(bad, none).code() == Code::kInvalidArgument);
  }
}

TEST_CASE("The CRI's profile types mean what the kubelet means by them") {
  using runtime::v1::SecurityProfile;
  SpecFixture fixture;
  const auto section = [&fixture]() -> json {
    const Result<BuiltSpec> built = fixture.Build();
    if (!built.ok()) return CodeName(built.code());
    return built->spec["linux"].value("seccomp", json());
  };
  auto& security = fixture.security();
  CHECK(section().is_null());
  security.set_seccomp_profile_path("runtime/default");
  CHECK(section()["defaultErrnoRet"] == 38);
  security.set_seccomp_profile_path("nonsense");
  CHECK(section() == "INVALID_ARGUMENT");
  // A message without a type is RuntimeDefault, and stands before the deprecated path.
  security.mutable_seccomp();
  CHECK(section()["defaultErrnoRet"] == 38);
  security.mutable_seccomp()->set_profile_type(SecurityProfile::Unconfined);
  CHECK(section().is_null());
  security.mutable_seccomp()->set_profile_type(SecurityProfile::Localhost);
  CHECK(section() == "INVALID_ARGUMENT");
  security.mutable_seccomp()->set_localhost_ref(fixture.root / "absent.json");
  CHECK(section() == "FAILED_PRECONDITION");
  security.mutable_seccomp()->set_localhost_ref(
      fixture.root.Write("p.json", R"({"defaultAction":"SCMP_ACT_LOG"})"));
  CHECK(section() == json{{"defaultAction", "SCMP_ACT_LOG"}});
  fixture.defaults.seccomp_profile = fixture.root / "p.json";
  security.mutable_seccomp()->set_profile_type(SecurityProfile::RuntimeDefault);
  CHECK(section() == json{{"defaultAction", "SCMP_ACT_LOG"}});
}

TEST_CASE("An old crun gets the compiled program, from the cache the second time") {
  SpecFixture fixture;
  fixture.runtime = {"crun", "/usr/bin/crun", "1.8.1", true, true};
  fixture.defaults.seccomp_cache_dir = fixture.root / "cache";
  fixture.security().mutable_seccomp();
  const json first = fixture.Build().value().spec;
  CHECK_FALSE(first["linux"].contains("seccomp"));
  CHECK(first["annotations"]["run.oci.seccomp_bpf_data"].get<std::string>().size() > 1000);
  CHECK(fixture.Build().value().spec == first);
  fixture.runtime.version = "1.21";
  CHECK(fixture.Build().value().spec["linux"].contains("seccomp"));
}
