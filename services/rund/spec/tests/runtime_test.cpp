// What the real runtimes make of our specs, and ExecSync against them. Needs root.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <future>

#include "libs/os/cgroup.h"
#include "libs/os/files.h"
#include "libs/os/pidfd.h"
#include "libs/process/command.h"
#include "services/rund/runtime/exec_sync.h"
#include "services/rund/spec/tests/fixture.h"

using namespace crisp;
using namespace crisp::rund;
using namespace std::chrono_literals;
using Texts = std::vector<std::string>;

namespace {

constexpr const char* kBusybox = "/bin/busybox";

/// crun refuses hybrid cgroups: in a mount namespace of this process's own, `unified` goes.
void HideUnified() {
  const std::string unified = "/sys/fs/cgroup/unified";
  static bool done = false;
  if (done || !os::IsDirectory(unified)) return;
  REQUIRE(unshare(CLONE_NEWNS) == 0);
  REQUIRE(mount(nullptr, unified.c_str(), nullptr, MS_PRIVATE, nullptr) == 0);
  REQUIRE(mount(nullptr, "/sys/fs/cgroup", nullptr, MS_PRIVATE, nullptr) == 0);
  REQUIRE(umount2(unified.c_str(), 0) == 0);
  done = true;
}

/// A container of a real runtime, running `sleep`, on a busybox rootfs; gone at the end.
struct RealContainer : SpecFixture {
  explicit RealContainer(const std::string& name) {
    const bool crun = name == "crun";
    if (crun) HideUnified();
    runtime = {name, "/usr/bin/" + name, crun ? "1.8.1" : "1.1.5", crun, true};
    pod_files = {};
    pod_files.hostname = "node";
    defaults.host = DetectHost().value();
    defaults.seccomp_cache_dir = root / "cache";
    defaults.capabilities = {"CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID"};
    const std::string bin = root / "rootfs/bin";
    REQUIRE(os::MakeDirs(bin).ok());
    REQUIRE(os::WriteFile(bin + "/busybox", os::ReadFile(kBusybox, MiB(16)).value(), 0755).ok());
    for (const char* applet :
         {"sh", "sleep", "cat", "id", "grep", "env", "pwd", "true", "yes", "head", "echo",
          "unshare", "readlink", "stat", "touch", "kill", "mount", "setsid"}) {
      REQUIRE(link((bin + "/busybox").c_str(), (bin + "/" + applet).c_str()) == 0);
    }
    config.clear_command();
    for (const char* word : {"/bin/sleep", "1000"}) config.add_command(word);
    id = fmt::format("crisp-test-{}-{}", name, getpid());
  }

  ~RealContainer() {
    static_cast<void>(Runtime({"delete", "--force", id}).ok());
    const Result<os::Cgroups> cgroups = os::Cgroups::Detect();
    if (cgroups.ok()) static_cast<void>(cgroups->Remove("/" + id).ok());
  }

  Result<process::Output> Runtime(Texts words) {
    process::Command command;
    command.program = runtime.path;
    command.args = {"--root", root / "state"};
    command.args.insert(command.args.end(), words.begin(), words.end());
    command.env = process::PlainEnvironment();
    return process::Run(CallContext::Background(30s), command);
  }

  void Start() {
    SpecInputs inputs = Inputs();
    inputs.cgroup_path = "/" + id + "/container";
    const Result<BuiltSpec> built = BuildSpec(CallContext::Background(30s), inputs, defaults);
    INFO(built.status().ToString());
    REQUIRE(built.ok());
    spec = built->spec;
    root.Write("bundle/config.json", spec.dump());
    const Result<process::Output> run =
        Runtime({"run", "--detach", "--bundle", root / "bundle", "--pid-file", root / "pid", id});
    REQUIRE(run.ok());
    INFO(run->err);
    REQUIRE(run->exit_code == 0);
  }

  Result<ExecSyncResult> Exec(const Texts& command, std::chrono::seconds timeout = 0s,
                              const CallContext& cc = CallContext::Background(60s)) {
    const nlohmann::json process = BuildExecProcess(spec, command, false).value();
    ExecSyncArgs args;
    static_cast<ExecArgs&>(args) = {.runtime = runtime.path,
                                    .runtime_options = {"--root", root / "state"},
                                    .container_id = id,
                                    .process_json = process.dump(),
                                    .scratch_dir = root.path(),
                                    .helper = CRISP_EXEC};
    args.timeout = timeout;
    args.max_output = max_output;
    return ExecSync(cc, args);
  }
  std::string Out(const Texts& command) {
    const Result<ExecSyncResult> result = Exec(command);
    if (!result.ok()) return result.status().ToString();
    return result->out + result->err;
  }
  std::string Shell(const std::string& script) { return Out({"/bin/sh", "-c", script}); }

  std::string id;
  nlohmann::json spec;
  Bytes max_output = MiB(16);
};

/// All processes whose command line holds `marker`; ours does not.
std::vector<pid_t> ProcessesWith(const std::string& marker) {
  std::vector<pid_t> found;
  const Texts names = os::ListDir("/proc").value();
  for (const std::string& name : names) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const Result<std::string> line = os::ReadFile("/proc/" + name + "/cmdline");
    if (line.ok() && line->find(marker) != std::string::npos) found.push_back(std::stoi(name));
  }
  return found;
}

}  // namespace

TEST_CASE("The runtimes take a full spec and give the container what it says") {
  const std::string name = GENERATE("runc", "crun");
  INFO(name);
  RealContainer container(name);
  container.root.Write("h/file", "from the host");
  container.AddMount("/mnt/data", container.root / "h").set_readonly(true);
  container.root.Write("rro/file", "deep");
  auto& rro = container.AddMount("/mnt/rro", container.root / "rro");
  rro.set_readonly(true);
  rro.set_recursive_read_only(true);
  container.image.set_config_json(
      R"({"config":{"User":"web","Env":["LANG=C"],"WorkingDir":"/work/here",
          "Volumes":{"/anonymous":{}}}})");
  auto& security = container.security();
  security.mutable_seccomp();
  security.set_no_new_privs(true);
  security.set_readonly_rootfs(true);
  for (const char* path : {"/proc/kcore", "/proc/keys"}) security.add_masked_paths(path);
  for (const char* path : {"/proc/sys", "/proc/bus"}) security.add_readonly_paths(path);
  auto& resources = *container.config.mutable_linux()->mutable_resources();
  resources.set_memory_limit_in_bytes(64 << 20);
  resources.set_memory_swap_limit_in_bytes(64 << 20);
  resources.set_cpu_shares(512);
  resources.set_oom_score_adj(-998);
  resources.add_hugepage_limits()->set_page_size("2MB");
  auto& device = *container.config.add_devices();
  device.set_host_path("/dev/null");
  device.set_container_path("/dev/nothing");
  container.Start();

  CHECK(container.Out({"/bin/id", "-u"}) == "1000\n");
  CHECK(container.Out({"/bin/id", "-G"}) == "1001 44 50\n");
  CHECK(container.Out({"/bin/pwd"}) == "/work/here\n");
  CHECK(container.Shell("touch /work/here/x 2>&1").find("Read-only") != std::string::npos);
  CHECK(container.Out({"/bin/stat", "-c", "%u:%g", "/work/here"}) == "1000:1001\n");
  CHECK(container.Shell("echo $HOME $LANG $HOSTNAME") == "/srv/web C node\n");
  CHECK(container.Out({"/bin/cat", "/mnt/data/file"}) == "from the host");
  CHECK(container.Shell("echo x > /mnt/data/file").find("Read-only") != std::string::npos);
  CHECK(container.Out({"/bin/cat", "/mnt/rro/file"}) == "deep");
  CHECK(container.Shell("echo hello > /dev/nothing; echo $?") == "0\n");
  const std::string status = container.Shell("cat /proc/self/status");
  CHECK(status.find("Seccomp:\t2") != std::string::npos);
  CHECK(status.find("NoNewPrivs:\t1") != std::string::npos);
  CHECK(status.find("CapEff:\t0000000000000000") != std::string::npos);
  CHECK(status.find("CapBnd:\t00000000000000e3") != std::string::npos);
  CHECK(container.Shell("unshare -m true 2>&1").find("not permitted") != std::string::npos);
  CHECK(container.Shell("cat /proc/kcore | head -c 1; echo $?").find("0") != std::string::npos);
  const std::string pid = container.root.Read("pid");
  CHECK(os::ReadFile("/proc/" + pid + "/oom_score_adj").value() ==
        fmt::format("{}\n", std::max(-998, container.defaults.host.lowest_oom_score_adj)));
}

TEST_CASE("A privileged container runs with what this daemon has") {
  const std::string name = GENERATE("runc", "crun");
  INFO(name);
  RealContainer container(name);
  container.sandbox.mutable_linux()->mutable_security_context()->set_privileged(true);
  container.security().set_privileged(true);
  container.security().mutable_seccomp();
  container.Start();
  const std::string status = container.Shell("cat /proc/self/status");
  CHECK(status.find("Seccomp:\t0") != std::string::npos);
  CHECK(
      status.find(fmt::format("CapEff:\t{:016x}", container.defaults.host.bounding_capabilities)) !=
      std::string::npos);
  CHECK(container.Shell("unshare -m true; echo $?") == "0\n");
}

TEST_CASE("Mounts propagate as far as the CRI says, and no farther") {
  const std::string name = GENERATE("runc", "crun");
  INFO(name);
  RealContainer container(name);
  // The machine's own mounts may be private: shared ones of the test's own, gone with its tree.
  for (const char* directory : {"private", "slave", "shared"}) {
    const std::string path = container.root / directory;
    REQUIRE(os::MakeDirs(path).ok());
    REQUIRE(mount("tmpfs", path.c_str(), "tmpfs", 0, nullptr) == 0);
    REQUIRE(mount(nullptr, path.c_str(), nullptr, MS_SHARED, nullptr) == 0);
    for (const char* sub : {"/from-host", "/from-container"})
      REQUIRE(os::MakeDirs(path + sub).ok());
  }
  container.AddMount("/private", container.root / "private");
  container.AddMount("/slave", container.root / "slave")
      .set_propagation(runtime::v1::PROPAGATION_HOST_TO_CONTAINER);
  container.AddMount("/shared", container.root / "shared")
      .set_propagation(runtime::v1::PROPAGATION_BIDIRECTIONAL);
  container.security().mutable_capabilities()->add_add_capabilities("SYS_ADMIN");
  container.Start();

  const auto seen_on_host = [&container](const std::string& directory) {
    const std::string mounted = container.root / directory + "/from-container";
    const std::string script = fmt::format("mount -t tmpfs tmpfs /{}/from-container", directory);
    REQUIRE(container.Shell(script).empty());
    return os::ReadFile("/proc/self/mountinfo", MiB(4)).value().find(mounted) != std::string::npos;
  };
  CHECK_FALSE(seen_on_host("private"));
  CHECK_FALSE(seen_on_host("slave"));
  CHECK(seen_on_host("shared"));

  const auto seen_in_container = [&container](const std::string& directory) {
    const std::string path = container.root / directory + "/from-host";
    REQUIRE(mount("tmpfs", path.c_str(), "tmpfs", 0, nullptr) == 0);
    return container.Shell("cat /proc/self/mountinfo").find("/" + directory + "/from-host") !=
           std::string::npos;
  };
  CHECK_FALSE(seen_in_container("private"));
  CHECK(seen_in_container("slave"));
  CHECK(seen_in_container("shared"));
}

TEST_CASE("ExecSync answers output and exit code, and ends with the command itself") {
  const std::string name = GENERATE("runc", "crun");
  INFO(name);
  RealContainer container(name);
  container.Start();
  Result<ExecSyncResult> result =
      container.Exec({"/bin/sh", "-c", "echo out; echo err >&2; exit 7"});
  REQUIRE(result.ok());
  CHECK(result->exit_code == 7);
  CHECK(result->out == "out\n");
  CHECK(result->err == "err\n");

  CHECK(container.Exec({"/bin/sh", "-c", "kill -9 $$"})->exit_code == 137);
  CHECK(container.Exec({"/bin/sh", "-c", "kill -15 $$"})->exit_code == 143);
  CHECK(container.Exec({"/bin/cat"})->exit_code == 0);  // stdin is empty

  // A child in the background keeps stdout open.
  const auto before = std::chrono::steady_clock::now();
  result = container.Exec({"/bin/sh", "-c", "sleep 100 & echo done"});
  INFO(result.status().ToString());
  REQUIRE(result.ok());
  CHECK(result->out == "done\n");
  CHECK(std::chrono::steady_clock::now() - before < 30s);

  result = container.Exec({"/no/such/thing"});
  REQUIRE_FALSE(result.ok());
  INFO(result.status().ToString());
  CHECK(result.status().message().find("/no/such/thing") != std::string::npos);
  CHECK(os::ListDir(container.root.path()).value().size() < 12);  // no scratch is left
}

TEST_CASE("ExecSync keeps what fits of the output and lets the command finish") {
  RealContainer container("runc");
  container.max_output = KiB(64);
  container.Start();
  const Result<ExecSyncResult> result = container.Exec(
      {"/bin/sh", "-c", "yes | head -c 3000000; yes e | head -c 200000 >&2; exit 3"});
  REQUIRE(result.ok());
  CHECK(result->out.size() == 65536);
  CHECK(result->err.size() == 65536);
  CHECK(result->exit_code == 3);
}

TEST_CASE("A timeout of ExecSync kills the command with all its descendants, and nothing else") {
  const std::string name = GENERATE("runc", "crun");
  INFO(name);
  RealContainer container(name);
  container.Start();
  // What another command has left behind goes on.
  const Result<ExecSyncResult> before =
      container.Exec({"/bin/sh", "-c", "(setsid sleep 4710 > /dev/null 2>&1 &)"});
  CHECK(before.ok());
  // Children, one orphaned, one that ignores the polite signals; a daemon, and one without a word
  // of our environment.
  const std::string script =
      "trap '' TERM INT HUP; (sleep 4711 &) ; (setsid sleep 4715 > /dev/null 2>&1 &); "
      "(setsid env -i /bin/sleep 4716 > /dev/null 2>&1 < /dev/null &); sleep 4712 & "
      "sh -c 'trap \"\" TERM; sleep 4713'";
  const Result<ExecSyncResult> result = container.Exec({"/bin/sh", "-c", script}, 1s);
  CHECK(result.code() == Code::kDeadlineExceeded);
  CHECK(ProcessesWith(std::string("sleep\0004710", 10)).size() == 1);
  for (const char* marker :
       {"sleep\0004711", "sleep\0004712", "sleep\0004713", "sleep\0004715", "sleep\0004716"}) {
    const std::vector<pid_t> left = ProcessesWith(std::string(marker, 10));
    for (const pid_t pid : left) {
      UNSCOPED_INFO(os::ReadFile(fmt::format("/proc/{}/stat", pid)).value_or(""));
    }
    CHECK(left.empty());
  }
  CHECK(container.Out({"/bin/echo", "alive"}) == "alive\n");
}

TEST_CASE("A command that writes faster than we read does not outlive its timeout") {
  RealContainer container("runc");
  container.Start();
  container.max_output = KiB(1);
  const Result<ExecSyncResult> result =
      container.Exec({"/bin/sh", "-c", "cat /dev/zero & cat /dev/zero & cat /dev/zero >&2"}, 1s);
  CHECK(result.code() == Code::kDeadlineExceeded);
}

TEST_CASE("A caller of ExecSync that goes away takes the command along") {
  RealContainer container("runc");
  container.Start();
  std::stop_source stop;
  const CallContext cc(SteadyTime::max(), stop.get_token(), "test");
  // The file says that the command runs.
  REQUIRE(os::MakeDirs(container.root / "rootfs/tmp").ok());
  REQUIRE(mkfifo((container.root / "rootfs/tmp/started").c_str(), 0666) == 0);
  auto call = std::async(std::launch::async, [&container, &cc] {
    return container.Exec({"/bin/sh", "-c", "echo > /tmp/started; sleep 4714"}, 0s, cc);
  });
  CHECK(os::ReadFile(container.root / "rootfs/tmp/started").ok());
  stop.request_stop();
  CHECK(call.get().code() == Code::kCancelled);
  CHECK(ProcessesWith(std::string("sleep\0004714", 10)).empty());
}
